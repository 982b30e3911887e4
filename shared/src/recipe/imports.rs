//! Composing files: `imports` and `$import` in all their forms.
//!
//! A mapping with `$import` starts from the named snippets and lets its own keys win, without merging deeper. A list
//! element that is nothing but `$import` is spliced or appended, whichever the shapes of snippet and list say.

use std::collections::HashMap;
use std::rc::Rc;

use super::library::{Library, Location};
use super::raw::{Import, RawFile};
use super::read;
use super::schema::Schema;
use crate::yaml::{Content, Entry, MAX_COST, MAX_DEPTH, Mapping, Node, closest};
use crate::{Error, Result};

const MARKER: &str = "$import";

/// Longest chain of files importing one another.
const MAX_CHAIN: usize = 32;

/// Resolves files against a library; remembers what it resolved, so that a snippet is read once.
pub(super) struct Resolver<'a> {
    library: &'a Library,
    resolved: HashMap<String, Rc<Snippet>>,
    /// Files that are being resolved, outermost first.
    chain: Vec<String>,
    /// What imports have added to the tree so far.
    cost: usize,
}

/// A snippet with its own imports resolved.
struct Snippet {
    node: Node,
    schema: Schema,
    cost: usize,
}

/// The names that a file knows.
type Scope = Vec<(String, Rc<Snippet>)>;

impl<'a> Resolver<'a> {
    /// A resolver that has seen nothing.
    pub fn new(library: &'a Library) -> Self {
        Self { library, resolved: HashMap::new(), chain: Vec::new(), cost: 0 }
    }

    /// The body of a file with everything imported in place.
    ///
    /// # Errors
    /// An unknown name or file, a cycle, a snippet without schema comment or of another shape than its place.
    pub fn resolve(&mut self, file: RawFile, schema: Schema) -> Result<Node> {
        self.resolve_with(file, schema, &[])
    }

    /// The same for a file that also knows names declared elsewhere; its own names win.
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn resolve_with(&mut self, file: RawFile, schema: Schema, outer: &[Import]) -> Result<Node> {
        if self.chain.contains(&file.identity) {
            return Err(self.cycle(&file.identity));
        }
        self.chain.push(file.identity.clone());
        let inherited = outer.iter().filter(|import| !file.imports.iter().any(|own| own.name == import.name));
        let scope: Result<Scope> = file
            .imports
            .iter()
            .chain(inherited)
            .map(|import| Ok((import.name.clone(), self.snippet(import)?)))
            .collect();
        let node = scope.and_then(|scope| self.value(file.body, &scope, schema, &mut Vec::new()));
        self.chain.pop();
        node
    }

    fn snippet(&mut self, import: &Import) -> Result<Rc<Snippet>> {
        let location = self.location(import)?;
        let identity = location.identity();
        if self.chain.contains(&identity) {
            return Err(import.refuse(self.cycle(&identity)));
        }
        if self.chain.len() >= MAX_CHAIN {
            let message = format!("more than {MAX_CHAIN} files import one another in a chain");
            return Err(import.refuse(Error::input(message)));
        }
        if let Some(snippet) = self.resolved.get(&identity) {
            return Ok(Rc::clone(snippet));
        }
        let raw = RawFile::read(&location)?;
        let Some(schema) = raw.schema else {
            let (name, file) = (&import.name, location.path());
            let message = format!("the import `{name}` has no `modelopt-schema` comment: {}", file.display());
            return Err(import.refuse(Error::input(message)).hint(
                "start it with `# modelopt-schema: modelopt.torch.quantization.config.QuantizerCfgListConfig` \
                 or the like",
            ));
        };
        let within = |error: Error| error.context(format!("in the import `{}`", import.name));
        let node = self.resolve(raw, schema).map_err(within)?;
        read::check(&node, schema).map_err(within)?;
        let snippet = Rc::new(Snippet { cost: cost(&node), node, schema });
        self.resolved.insert(identity, Rc::clone(&snippet));
        Ok(snippet)
    }

    /// The file of an import, or the name that was probably meant.
    fn location(&self, import: &Import) -> Result<Location> {
        self.library.find_config(&import.path).map_err(|error| {
            let names = self.library.names();
            import.refuse(error).hint(match closest(&import.path, names.iter().map(String::as_str)) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "paths are relative to the working folder or to the library (`qlaunch recipe list`)"
                    .to_owned(),
            })
        })
    }

    fn cycle(&self, identity: &str) -> Error {
        let chain: Vec<String> =
            self.chain.iter().chain([&identity.to_owned()]).map(|file| format!("`{file}`")).collect();
        Error::input(format!("circular import: {}", chain.join(" → "))).hint("remove one of these imports")
    }

    /// A value with everything imported in place; `path` names it in errors.
    fn value(&mut self, node: Node, scope: &Scope, schema: Schema, path: &mut Vec<String>) -> Result<Node> {
        if path.len() > MAX_DEPTH {
            let message = format!("imports nest deeper than {MAX_DEPTH} levels");
            return Err(node.mark.refuse(message).key(path.join(".")));
        }
        let mark = node.mark;
        let content = match node.content {
            Content::Map(mapping) if mapping.get(MARKER).is_some() => {
                let content = Content::Map(self.merged(mapping, scope, path)?);
                return self.value(Node { content, mark }, scope, schema, path);
            }
            Content::Map(mapping) => Content::Map(self.entries(mapping, scope, schema, path)?),
            Content::List(list) => Content::List(self.list(list, scope, schema, path)?),
            scalar => scalar,
        };
        Ok(Node { content, mark })
    }

    fn entries(
        &mut self,
        mapping: Mapping,
        scope: &Scope,
        schema: Schema,
        path: &mut Vec<String>,
    ) -> Result<Mapping> {
        let mut resolved = |mut entry: Entry| {
            path.push(entry.key.clone());
            entry.node = self.value(entry.node, scope, schema.child(&entry.key), path)?;
            path.pop();
            Ok(entry)
        };
        mapping.into_iter().map(&mut resolved).collect()
    }

    fn list(
        &mut self,
        list: Vec<Node>,
        scope: &Scope,
        schema: Schema,
        path: &mut Vec<String>,
    ) -> Result<Vec<Node>> {
        let element_schema = schema.element().unwrap_or(Schema::Any);
        let mut resolved = Vec::with_capacity(list.len());
        for (index, element) in list.into_iter().enumerate() {
            path.push(index.to_string());
            match bare_import(&element) {
                Some(marker) => resolved.extend(self.elements(marker, scope, schema, path)?),
                None => resolved.push(self.value(element, scope, element_schema, path)?),
            }
            path.pop();
        }
        Ok(resolved)
    }

    /// The mapping form: named snippets in order, then the mapping's own keys.
    fn merged(&mut self, mut own: Mapping, scope: &Scope, path: &[String]) -> Result<Mapping> {
        let mut merged = Mapping::default();
        let Some(marker) = own.remove(MARKER) else {
            return Ok(own);
        };
        let names = match &marker.node.content {
            Content::List(names) => names.as_slice(),
            _ => std::slice::from_ref(&marker.node),
        };
        for name in names {
            let snippet = lookup(name, scope, path)?;
            let Content::Map(fields) = &snippet.node.content else {
                return Err(name
                    .mark
                    .refuse(format!(
                        "`$import` inside a mapping needs a mapping, and this is {}",
                        snippet.node.kind()
                    ))
                    .key(path.join("."))
                    .hint("import a list as a list element of its own: `- $import: name`"));
            };
            self.spend(snippet.cost, name)?;
            merged.update(fields.clone());
        }
        merged.update(own);
        Ok(merged)
    }

    /// The list form: a list of the same shape is spliced, an element of it is appended.
    fn elements(
        &mut self,
        marker: &Node,
        scope: &Scope,
        schema: Schema,
        path: &[String],
    ) -> Result<Vec<Node>> {
        let refuse = |message: String| marker.mark.refuse(message).key(path.join("."));
        if matches!(marker.content, Content::List(_)) {
            return Err(refuse("a list element imports one name".to_owned())
                .hint("write one `- $import: name` line per name"));
        }
        let snippet = lookup(marker, scope, path)?;
        let Some(element) = schema.element() else {
            return Err(refuse("`$import` as a list element needs a list of known shape here".to_owned())
                .hint(
                    "only lists such as `quant_cfg`, `candidate_formats` and `disabled_layers` take imports",
                ));
        };
        self.spend(snippet.cost, marker)?;
        match &snippet.node.content {
            Content::List(list) if snippet.schema == schema => Ok(list.clone()),
            _ if snippet.schema == element => Ok(vec![snippet.node.clone()]),
            _ => Err(refuse(format!(
                "this place takes {} or {}, and the import is {}",
                schema.words(),
                element.words(),
                snippet.schema.words()
            ))
            .hint("import a snippet of either shape, or change its `modelopt-schema` comment")),
        }
    }

    fn spend(&mut self, cost: usize, place: &Node) -> Result<()> {
        self.cost += cost;
        match self.cost > MAX_COST {
            true => Err(place.mark.refuse("imports expand to more than a recipe may hold")),
            false => Ok(()),
        }
    }
}

/// The name of an element that is nothing but `$import`.
fn bare_import(element: &Node) -> Option<&Node> {
    element.mapping().filter(|mapping| mapping.len() == 1).and_then(|mapping| mapping.get(MARKER))
}

fn lookup(name: &Node, scope: &Scope, path: &[String]) -> Result<Rc<Snippet>> {
    let refuse = |message: String| name.mark.refuse(message).key(path.join("."));
    let Some(wanted) = name.text() else {
        return Err(refuse(format!("`$import` takes a name, not {}", name.kind())));
    };
    if let Some((_, snippet)) = scope.iter().find(|(known, _)| known == wanted) {
        return Ok(Rc::clone(snippet));
    }
    let known: Vec<&str> = scope.iter().map(|(known, _)| known.as_str()).collect();
    if known.is_empty() {
        return Err(refuse(format!("unknown import `{wanted}`: no imports are declared in this file"))
            .hint(format!("add `imports:` with a line `{wanted}: PATH` to this file")));
    }
    Err(refuse(format!("unknown import `{wanted}`")).hint(crate::yaml::did_you_mean(wanted, &known)))
}

/// What a tree costs, as the parser counts it.
fn cost(node: &Node) -> usize {
    64 + match &node.content {
        Content::Text(text) => text.len(),
        Content::List(list) => list.iter().map(cost).sum(),
        Content::Map(mapping) => mapping.iter().map(|entry| entry.key.len() + 64 + cost(&entry.node)).sum(),
        Content::Null | Content::Bool(_) | Content::Number(_) => 0,
    }
}
