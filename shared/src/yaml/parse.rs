//! From parser events to trees, with bounds on size, depth and alias expansion.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::node::{Content, Entry, Mapping, Mark, Node, Source};
use super::scalar::{self, Floats};
use crate::{Error, Result};

/// Longest text that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting that is read.
pub const MAX_DEPTH: usize = 64;
/// Largest tree after aliases are expanded: 64 per node plus the bytes of its text.
pub const MAX_COST: usize = 32 << 20;

/// What a node costs against [`MAX_COST`] beyond its text.
const NODE_COST: usize = 64;

/// All documents of a text.
pub fn documents(text: &str, source: Arc<Source>, floats: Floats) -> Result<Vec<Node>> {
    if text.len() > MAX_BYTES {
        return Err(Error::input(format!(
            "{} bytes of YAML are more than the {MAX_BYTES} allowed",
            text.len()
        ))
        .at(&source.file)
        .hint("keep large data in files of its own"));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::new(source, floats);
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                let mark = builder.mark(*error.marker());
                return Err(match error.info() {
                    // The scanner looks ahead and has a bound of its own.
                    "recursion limit exceeded" => mark.refuse(too_deep()),
                    info => mark.refuse(format!("this is not YAML: {info}")),
                });
            }
        }
    }
    Ok(builder.documents)
}

/// A collection that is still open.
struct Frame {
    mark: Mark,
    anchor: usize,
    /// What the collection has cost so far, itself included.
    cost: usize,
    /// Levels below the collection so far.
    height: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map { mapping: Mapping, seen: HashSet<String>, key: Option<(String, Mark)>, merges: Vec<Node> },
}

/// A finished node with its size.
#[derive(Clone)]
struct Finished {
    node: Node,
    cost: usize,
    height: usize,
}

struct Builder {
    source: Arc<Source>,
    floats: Floats,
    documents: Vec<Node>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Finished>,
    spent: usize,
}

impl Builder {
    fn new(source: Arc<Source>, floats: Floats) -> Self {
        let (documents, stack, anchors) = (Vec::new(), Vec::new(), HashMap::new());
        Self { source, floats, documents, stack, anchors, spent: 0 }
    }

    fn mark(&self, marker: Marker) -> Mark {
        Mark { source: Arc::clone(&self.source), line: marker.line().max(1), column: marker.col() + 1 }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<()> {
        let mark = self.mark(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let content =
                    self.scalar(&text, style, tag.as_deref()).map_err(|reason| mark.refuse(reason))?;
                let finished =
                    Finished { cost: NODE_COST + text.len(), height: 0, node: Node { content, mark } };
                self.finish(finished, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(Items::List(Vec::new()), (anchor, tag.as_deref()), mark)
            }
            Event::MappingStart(anchor, tag) => {
                let (mapping, seen, merges) = (Mapping::default(), HashSet::new(), Vec::new());
                self.open(Items::Map { mapping, seen, key: None, merges }, (anchor, tag.as_deref()), mark)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, mark),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Content, String> {
        match tag {
            Some(tag) if tag.is_yaml_core_schema() => scalar::resolve_tagged(text, &tag.suffix),
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => Ok(Content::Text(text.to_owned())),
            Some(tag) => Err(format!("the tag `{tag}` is not supported")),
            None if style == ScalarStyle::Plain => scalar::resolve(text, self.floats),
            None => Ok(Content::Text(text.to_owned())),
        }
    }

    fn open(&mut self, items: Items, (anchor, tag): (usize, Option<&Tag>), mark: Mark) -> Result<()> {
        let fits = tag.is_none_or(|tag| {
            let kind = if matches!(items, Items::List(_)) { "seq" } else { "map" };
            tag.is_yaml_core_schema() && tag.suffix == kind
        });
        if let (false, Some(tag)) = (fits, tag) {
            return Err(mark.refuse(format!("the tag `{tag}` is not supported")));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(mark.refuse(too_deep()));
        }
        self.stack.push(Frame { mark, anchor, cost: NODE_COST, height: 0, items });
        self.spend(NODE_COST)
    }

    fn close(&mut self) -> Result<()> {
        let Some(Frame { mark, anchor, cost, height, items }) = self.stack.pop() else {
            return Err(Error::bug("a YAML collection ended that was never opened"));
        };
        let content = match items {
            Items::List(list) => Content::List(list),
            Items::Map { mapping, merges, .. } => Content::Map(merged(mapping, merges)?),
        };
        // The cost of the parts is spent already.
        self.spent = self.spent.saturating_sub(cost);
        self.finish(Finished { node: Node { content, mark }, cost, height: height + 1 }, anchor)
    }

    fn alias(&mut self, anchor: usize, mark: Mark) -> Result<()> {
        let Some(finished) = self.anchors.get(&anchor) else {
            return Err(mark.refuse("this alias stands inside the node that it refers to"));
        };
        if self.stack.len() + finished.height > MAX_DEPTH {
            return Err(mark.refuse(format!("aliases nest deeper than {MAX_DEPTH} levels")));
        }
        if self.spent + finished.cost > MAX_COST {
            return Err(mark.refuse("aliases expand to more than a file may hold"));
        }
        self.finish(finished.clone(), 0)
    }

    fn spend(&mut self, cost: usize) -> Result<()> {
        self.spent += cost;
        if self.spent <= MAX_COST {
            return Ok(());
        }
        Err(Error::input("this file holds more than can be read").at(&self.source.file))
    }

    /// Hands a finished node to the collection it stands in, or to the list of documents.
    fn finish(&mut self, finished: Finished, anchor: usize) -> Result<()> {
        self.spend(finished.cost)?;
        if anchor != 0 {
            self.spend(finished.cost)?;
            self.anchors.insert(anchor, finished.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.documents.push(finished.node);
            return Ok(());
        };
        frame.cost += finished.cost;
        frame.height = frame.height.max(finished.height);
        match &mut frame.items {
            Items::List(list) => list.push(finished.node),
            Items::Map { mapping, seen, key, merges } => match key.take() {
                None => *key = Some(key_text(finished.node)?),
                Some((text, _)) if text == "<<" => merges.push(finished.node),
                Some((text, mark)) => {
                    if !seen.insert(text.clone()) {
                        return Err(mark
                            .refuse(format!("the key `{text}` appears twice"))
                            .key(text)
                            .hint("keep one of them"));
                    }
                    mapping.push(Entry { key: text, mark, node: finished.node });
                }
            },
        }
        Ok(())
    }
}

fn too_deep() -> String {
    format!("nested deeper than {MAX_DEPTH} levels")
}

fn key_text(node: Node) -> Result<(String, Mark)> {
    let text = match node.content {
        Content::Text(text) => text,
        Content::Number(number) => number.to_string(),
        Content::Bool(flag) => flag.to_string(),
        Content::Null => "null".to_owned(),
        Content::List(_) | Content::Map(_) => return Err(node.mark.refuse("a key must be text or a number")),
    };
    Ok((text, node.mark))
}

/// Applies `<<` merge keys: a mapping's own keys win, then earlier merges.
fn merged(own: Mapping, merges: Vec<Node>) -> Result<Mapping> {
    let mut layers = Vec::new();
    for node in merges {
        match node.content {
            Content::Map(mapping) => layers.push(mapping),
            Content::List(list) => {
                for node in list {
                    layers.push(mergeable(node)?);
                }
            }
            _ => layers.push(mergeable(node)?),
        }
    }
    if layers.is_empty() {
        return Ok(own);
    }
    Ok(layers.into_iter().rev().flatten().chain(own).collect())
}

fn mergeable(node: Node) -> Result<Mapping> {
    match node.content {
        Content::Map(mapping) => Ok(mapping),
        _ => Err(node.mark.refuse("`<<` merges mappings only")),
    }
}

/// A node for a text without any document.
pub fn null(source: Arc<Source>) -> Node {
    Node { content: Content::Null, mark: Mark { source, line: 1, column: 1 } }
}
