//! Composing files: `imports` and `$import` in all their forms.
//!
//! A mapping with `$import` starts from the named snippets and lets its own keys win, without merging deeper. A list
//! element that is nothing but `$import` is spliced or appended, whichever the shapes of snippet and list say.

use std::collections::HashMap;
use std::rc::Rc;

use super::faults::{Checked, ENOUGH, Faults};
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
    /// Nothing stands for a snippet whose faults have been reported.
    resolved: HashMap<String, Option<Rc<Snippet>>>,
    /// What is wrong with list elements that were left out of the tree.
    lost: Faults,
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

/// The names that a file knows; nothing stands for a snippet that could not be had.
type Scope = Vec<(String, Option<Rc<Snippet>>)>;

impl<'a> Resolver<'a> {
    /// A resolver that has seen nothing.
    pub fn new(library: &'a Library) -> Self {
        Self { library, resolved: HashMap::new(), lost: Faults::default(), chain: Vec::new(), cost: 0 }
    }

    /// The body of a file with everything imported in place.
    ///
    /// # Errors
    /// Unknown names or files, cycles, snippets without schema comment or of another shape than their place.
    pub fn resolve(&mut self, file: RawFile, schema: Schema) -> Checked<Node> {
        match self.partly(file, schema, &[]) {
            (Some(node), faults) => faults.unless_any(node),
            (None, faults) => Err(faults),
        }
    }

    /// What can be resolved of a file, and everything that cannot: list elements with faults are left out. The file
    /// also knows names that are declared elsewhere; its own win.
    pub fn partly(&mut self, file: RawFile, schema: Schema, outer: &[Import]) -> (Option<Node>, Faults) {
        if self.chain.contains(&file.identity) {
            return (None, self.cycle(&file.identity).into());
        }
        self.chain.push(file.identity.clone());
        let lost_outside = std::mem::take(&mut self.lost);
        let inherited = outer.iter().filter(|import| !file.imports.iter().any(|own| own.name == import.name));
        let mut faults = Faults::default();
        let mut scope = Scope::new();
        for import in file.imports.iter().chain(inherited) {
            scope.push((import.name.clone(), faults.keep(self.snippet(import)).flatten()));
            if faults.are_enough() {
                break;
            }
        }
        let node = self.value(file.body, &scope, schema, &mut Vec::new());
        let node = faults.keep(node);
        let lost = std::mem::replace(&mut self.lost, lost_outside);
        faults.keep(lost.unless_any(()));
        self.chain.pop();
        (node, faults)
    }

    /// The snippet of an import; nothing if its faults have been reported before.
    fn snippet(&mut self, import: &Import) -> Checked<Option<Rc<Snippet>>> {
        let location = self.location(import)?;
        let identity = location.identity();
        if self.chain.contains(&identity) {
            return Err(import.refuse(self.cycle(&identity)).into());
        }
        if self.chain.len() >= MAX_CHAIN {
            let message = format!("more than {MAX_CHAIN} files import one another in a chain");
            return Err(import.refuse(Error::input(message)).into());
        }
        if let Some(snippet) = self.resolved.get(&identity) {
            return Ok(snippet.clone());
        }
        if self.cost > MAX_COST {
            // It was said when it became too much; reading on would only take time.
            return Ok(None);
        }
        self.resolved.insert(identity.clone(), None);
        let snippet = Rc::new(self.read(import, &location)?);
        self.resolved.insert(identity, Some(Rc::clone(&snippet)));
        Ok(Some(snippet))
    }

    fn read(&mut self, import: &Import, location: &Location) -> Checked<Snippet> {
        let raw = RawFile::read(location)?;
        let Some(schema) = raw.schema else {
            let (name, file) = (&import.name, location.path());
            let message = format!("the import `{name}` has no `modelopt-schema` comment: {}", file.display());
            return Err(import.refuse(Error::input(message)).hint(
                "start it with `# modelopt-schema: modelopt.torch.quantization.config.QuantizerCfgListConfig` \
                 or the like",
            ).into());
        };
        let within = |faults: Faults| faults.context(&format!("in the import `{}`", import.name));
        let node = self.resolve(raw, schema).map_err(within)?;
        read::check(&node, schema).map_err(within)?;
        let cost = cost(&node);
        // Snippets are kept, used or not, so that they count as if they stood in the recipe.
        self.cost += cost;
        if self.cost > MAX_COST {
            let message = "the imports of this recipe hold more than a recipe may hold";
            return Err(import.mark.refuse(message).key(format!("imports.{}", import.name)).into());
        }
        Ok(Snippet { cost, node, schema })
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
    fn value(&mut self, node: Node, scope: &Scope, schema: Schema, path: &mut Vec<String>) -> Checked<Node> {
        if path.len() > MAX_DEPTH {
            let message = format!("imports nest deeper than {MAX_DEPTH} levels");
            return Err(node.mark.refuse(message).key(path.join(".")).into());
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
    ) -> Checked<Mapping> {
        let (mut resolved, mut broken) = (Vec::with_capacity(mapping.len()), Vec::new());
        for Entry { key, mark, node } in mapping {
            path.push(key.clone());
            match self.value(node, scope, schema.child(&key), path) {
                Ok(node) => resolved.push(Entry { key, mark, node }),
                Err(faults) => broken.push(faults),
            }
            path.pop();
            if broken.len() >= ENOUGH {
                break;
            }
        }
        if broken.is_empty() {
            return Ok(resolved.into_iter().collect());
        }
        let mut faults = Faults::default();
        for broken in broken {
            faults.keep::<()>(Err(broken));
        }
        Err(faults)
    }

    fn list(
        &mut self,
        list: Vec<Node>,
        scope: &Scope,
        schema: Schema,
        path: &mut Vec<String>,
    ) -> Checked<Vec<Node>> {
        let element_schema = schema.element().unwrap_or(Schema::Any);
        let mut resolved = Vec::with_capacity(list.len());
        for (index, element) in list.into_iter().enumerate() {
            path.push(index.to_string());
            let elements = match bare_import(&element) {
                Some(marker) => self.elements(marker, scope, schema, path),
                None => self.value(element, scope, element_schema, path).map(|element| vec![element]),
            };
            path.pop();
            resolved.extend(self.lost.keep(elements).into_iter().flatten());
            if self.lost.are_enough() {
                break;
            }
        }
        Ok(resolved)
    }

    /// The mapping form: named snippets in order, then the mapping's own keys.
    fn merged(&mut self, mut own: Mapping, scope: &Scope, path: &[String]) -> Checked<Mapping> {
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
                    .hint("import a list as a list element of its own: `- $import: name`")
                    .into());
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
    ) -> Checked<Vec<Node>> {
        let refuse = |message: String| marker.mark.refuse(message).key(path.join("."));
        if matches!(marker.content, Content::List(_)) {
            return Err(refuse("a list element imports one name".to_owned())
                .hint("write one `- $import: name` line per name")
                .into());
        }
        let snippet = lookup(marker, scope, path)?;
        let Some(element) = schema.element() else {
            return Err(refuse("`$import` as a list element needs a list of known shape here".to_owned())
                .hint(
                    "only lists such as `quant_cfg`, `candidate_formats` and `disabled_layers` take imports",
                )
                .into());
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
            .hint("import a snippet of either shape, or change its `modelopt-schema` comment")
            .into()),
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

/// The snippet of a name; no faults at all if they stand where the name is declared.
fn lookup(name: &Node, scope: &Scope, path: &[String]) -> Checked<Rc<Snippet>> {
    let refuse = |message: String| name.mark.refuse(message).key(path.join("."));
    let Some(wanted) = name.text() else {
        return Err(refuse(format!("`$import` takes a name, not {}", name.kind())).into());
    };
    if let Some((_, snippet)) = scope.iter().find(|(known, _)| known == wanted) {
        return snippet.clone().ok_or_else(Faults::default);
    }
    let known: Vec<&str> = scope.iter().map(|(known, _)| known.as_str()).collect();
    if known.is_empty() {
        return Err(refuse(format!("unknown import `{wanted}`: no imports are declared in this file"))
            .hint(format!("add `imports:` with a line `{wanted}: PATH` to this file"))
            .into());
    }
    Err(refuse(format!("unknown import `{wanted}`")).hint(crate::yaml::did_you_mean(wanted, &known)).into())
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
