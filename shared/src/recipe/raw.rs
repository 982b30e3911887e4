//! One file as it is written: its documents put together, its schema comment, its imports set aside.

use std::sync::Arc;

use super::library::Location;
use super::schema::Schema;
use crate::yaml::{Content, Document, Mapping, Mark, Node, Source, leading_comments};
use crate::{Error, Result};

/// One file before its imports are resolved.
#[derive(Debug, Clone)]
pub(super) struct RawFile {
    /// What it says, apart from `imports`.
    pub body: Node,
    /// Names and paths of what it imports.
    pub imports: Vec<Import>,
    /// The shape that its schema comment names.
    pub schema: Option<Schema>,
    /// How many YAML documents it has.
    pub documents: usize,
    /// Which file it is.
    pub identity: String,
}

/// One name that a file gives to another file.
#[derive(Debug, Clone)]
pub(super) struct Import {
    /// The name, known in this file only.
    pub name: String,
    /// The path as written.
    pub path: String,
    /// Where it is written.
    pub mark: Mark,
}

impl Import {
    /// Puts an error at this import, unless it has a place of its own.
    pub fn refuse(&self, error: Error) -> Error {
        match error.place.file {
            Some(_) => error,
            None => self.mark.locate(error).key(format!("imports.{}", self.name)),
        }
    }
}

const TWO_DOCUMENTS: &str = "put `imports:` into the first document and everything else into the second";
const SCHEMA_COMMENT: &str = "modelopt-schema:";

impl RawFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not YAML, or its documents, schema comment or imports are not as ModelOpt wants them.
    pub fn read(location: &Location) -> Result<Self> {
        let text = location.read()?;
        let source = Arc::new(Source { file: location.path(), library: location.is_library() });
        let schema = schema_comment(&text, &source)?;
        let documents = Document::parse_all(&text, Arc::clone(&source))?;
        let count = documents.len();
        let mut roots = documents.into_iter().map(Document::into_root);
        let start = Mark { source: Arc::clone(&source), line: 1, column: 1 };
        let (mut body, imports) = match (roots.next(), roots.next(), roots.next()) {
            (None, _, _) => (empty(start), None),
            (Some(root), None, _) if root.is_null() => (empty(root.mark), None),
            (Some(root), None, _) => single(root)?,
            (Some(header), Some(body), None) => joined(header, body)?,
            (_, _, Some(third)) => {
                return Err(third
                    .mark
                    .refuse(format!("expected 1 or 2 YAML documents, got {count}"))
                    .hint(TWO_DOCUMENTS));
            }
        };
        translate_floats(&mut body);
        let imports = imports.map_or_else(|| Ok(Vec::new()), declared)?;
        Ok(Self { body, imports, schema, documents: count, identity: location.identity() })
    }
}

fn empty(mark: Mark) -> Node {
    Node { content: Content::Map(Mapping::default()), mark }
}

fn single(mut root: Node) -> Result<(Node, Option<Node>)> {
    match &mut root.content {
        Content::Map(mapping) => {
            let imports = mapping.remove("imports").map(|entry| entry.node);
            Ok((root, imports))
        }
        Content::List(_) => Ok((root, None)),
        _ => Err(root.mark.refuse(format!("a recipe file holds a mapping or a list, not {}", root.kind()))),
    }
}

/// A header and a body: mappings are merged with the body winning; of a list's header only the imports count.
fn joined(header: Node, body: Node) -> Result<(Node, Option<Node>)> {
    let kind = header.kind();
    let Content::Map(mut fields) = header.content else {
        return Err(header
            .mark
            .refuse(format!("the first of two YAML documents must be a mapping, not {kind}"))
            .hint(TWO_DOCUMENTS));
    };
    match body.content {
        Content::Map(own) => {
            fields.update(own);
            single(Node { content: Content::Map(fields), mark: header.mark })
        }
        Content::Null => single(Node { content: Content::Map(fields), mark: header.mark }),
        Content::List(_) => Ok((body, fields.remove("imports").map(|entry| entry.node))),
        _ => Err(body
            .mark
            .refuse(format!(
                "the second of two YAML documents must be a mapping or a list, not {}",
                body.kind()
            ))
            .hint(TWO_DOCUMENTS)),
    }
}

fn declared(imports: Node) -> Result<Vec<Import>> {
    let kind = imports.kind();
    match imports.content {
        Content::Null => Ok(Vec::new()),
        Content::Map(mapping) => mapping
            .into_iter()
            .map(|entry| match entry.node.text() {
                Some(path) if !path.is_empty() => {
                    Ok(Import { path: path.to_owned(), mark: entry.node.mark.clone(), name: entry.key })
                }
                _ => Err(entry
                    .mark
                    .refuse(format!("the import `{}` has no path", entry.key))
                    .key(format!("imports.{}", entry.key))
                    .hint(format!("write `{}: configs/numerics/fp8` or the like", entry.key))),
            })
            .collect(),
        Content::List(list) if list.is_empty() => Ok(Vec::new()),
        _ => Err(imports
            .mark
            .refuse(format!("`imports` maps names to paths, and is {kind} here"))
            .key("imports")
            .hint("write `imports:` and below it lines like `fp8: configs/numerics/fp8`")),
    }
}

/// The schema that a comment before all content names.
fn schema_comment(text: &str, source: &Arc<Source>) -> Result<Option<Schema>> {
    let mut found: Option<Schema> = None;
    for (line, comment) in leading_comments(text) {
        let Some(path) = comment.trim_start_matches('#').trim_start().strip_prefix(SCHEMA_COMMENT) else {
            continue;
        };
        let refuse =
            |message: String| Error::input(message).at(&source.file).line(line, 1).key("modelopt-schema");
        let path = path.trim();
        if found.is_some() {
            return Err(refuse("a second `modelopt-schema` comment".to_owned()).hint("keep one of them"));
        }
        if !path.starts_with("modelopt.") {
            return Err(refuse(format!("the schema `{path}` does not start with `modelopt.`")).hint(
                "name a type of ModelOpt's, such as `modelopt.torch.quantization.config.QuantizeConfig`",
            ));
        }
        found = Some(Schema::named(path).ok_or_else(|| {
            refuse(format!("there is no schema `{path}`"))
                .hint("copy the comment of a similar file of the library (`qlaunch recipe list`)")
        })?);
    }
    Ok(found)
}

/// Reads `e4m3` under `num_bits` and `scale_bits` as exponent and mantissa bits, at any depth.
pub(super) fn translate_floats(node: &mut Node) {
    match &mut node.content {
        Content::Map(mapping) => {
            for entry in mapping.iter_mut() {
                let is_bits = matches!(entry.key.as_str(), "num_bits" | "scale_bits");
                match entry.node.text().filter(|_| is_bits).map(float_format) {
                    Some(Some((exponent, mantissa))) => {
                        let mark = &entry.node.mark;
                        let number =
                            |bits: u32| Node { content: Content::Number(bits.into()), mark: mark.clone() };
                        entry.node.content = Content::List(vec![number(exponent), number(mantissa)]);
                    }
                    // Another word: it stays, and the check of the attributes refuses it.
                    Some(None) => {}
                    None => translate_floats(&mut entry.node),
                }
            }
        }
        Content::List(list) => list.iter_mut().for_each(translate_floats),
        _ => {}
    }
}

/// `ExMy` in either case, as exponent and mantissa bits.
fn float_format(text: &str) -> Option<(u32, u32)> {
    let (exponent, mantissa) = text.strip_prefix(['e', 'E'])?.split_once(['m', 'M'])?;
    let bits = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().ok(),
        false => None,
    };
    Some((bits(exponent)?, bits(mantissa)?))
}
