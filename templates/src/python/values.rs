//! Lists, tuples, maps and what else Python has of the kind. They know their size, with all that they hold, so that
//! comparing them can be charged before, and none is nested so deep that dropping it overflows the stack.

use super::budget::{Budget, MAX_VALUE_BYTES};
use super::{undefined, wrong};
use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, ValueKind};
use minijinja::{Error, Value};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Most levels of lists in lists.
const MAX_DEPTH: u32 = 100;
/// What a value counts for in the size of the one that holds it, in addition to the bytes of a string.
const ITEM_BYTES: u64 = 16;
/// Memory of a list, in addition to its items.
const LIST_BYTES: usize = 96;
/// Memory of a map, in addition to its entries.
const MAP_BYTES: usize = 200;
/// Memory of an entry of a map: key, value and place in the index.
const ENTRY_BYTES: usize = 112;

/// A type of Python that has items in an order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    List,
    Tuple,
    /// A generator or another iterator, which has neither length nor items by index.
    Iterator,
    Keys,
    Values,
    Items,
    /// Start, end and step.
    Range(i64, i64, i64),
}

/// Levels, and bytes at all levels. A list that is held twice counts twice.
#[derive(Clone, Copy, Debug)]
struct Size {
    depth: u32,
    bytes: u64,
}

/// A list, tuple, iterator, view or range.
#[derive(Debug)]
pub(super) struct Sequence {
    pub kind: Kind,
    pub items: Vec<Value>,
    /// Names of the items, where they have some.
    names: &'static [&'static str],
    size: Size,
}

/// A map that keeps its order.
#[derive(Debug)]
pub(super) struct Dict {
    pub pairs: Vec<(Value, Value)>,
    index: HashMap<Value, usize>,
    size: Size,
}

impl Object for Sequence {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.kind == Kind::Iterator || !self.items.is_empty()
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter writes the values that a template shows; this is for minijinja's messages.
        write!(f, "{} of {} items", self.kind.name(), self.items.len())
    }
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.pairs.iter().map(|(key, _)| key.clone()).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.pairs.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dict of {} items", self.pairs.len())
    }
}

impl Sequence {
    pub(super) fn by_name(&self, name: &str) -> Option<&Value> {
        self.names.iter().position(|known| *known == name).and_then(|at| self.items.get(at))
    }
}

impl Dict {
    pub(super) fn get(&self, key: &Value) -> Option<&Value> {
        self.index.get(&normalised(key)).map(|&at| &self.pairs[at].1)
    }
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::List => "list",
            Kind::Tuple => "tuple",
            Kind::Iterator => "generator",
            Kind::Keys => "dict_keys",
            Kind::Values => "dict_values",
            Kind::Items => "dict_items",
            Kind::Range(..) => "range",
        }
    }

    /// Has items by index.
    pub(super) fn is_indexed(self) -> bool {
        matches!(self, Kind::List | Kind::Tuple | Kind::Range(..))
    }
}

impl Size {
    const EMPTY: Size = Size { depth: 0, bytes: ITEM_BYTES };

    /// The size of a value that may be put into another.
    fn of(value: &Value) -> Result<Size, Error> {
        if let Some(sequence) = sequence(value) {
            return Ok(sequence.size);
        }
        if let Some(dict) = as_dict(value) {
            return Ok(dict.size);
        }
        match value.as_object() {
            None => Ok(Size { depth: 0, bytes: weight(value) }),
            Some(_) => {
                Err(wrong("macros, namespaces and loops can't be stored in lists, maps or namespaces here"))
            }
        }
    }

    fn of_all<'v>(values: impl Iterator<Item = &'v Value>) -> Result<Size, Error> {
        let mut size = Size::EMPTY;
        for value in values {
            let inner = Size::of(value)?;
            size.depth = size.depth.max(inner.depth + 1);
            size.bytes += inner.bytes;
            if size.depth > MAX_DEPTH {
                return Err(wrong(format!("values are nested more than {MAX_DEPTH} levels deep")));
            }
            if size.bytes > MAX_VALUE_BYTES as u64 {
                return Err(wrong(format!(
                    "a value of more than {MAX_VALUE_BYTES} bytes, with all that it holds"
                )));
            }
        }
        Ok(size)
    }
}

/// Checks that a value may be kept in a namespace.
pub(super) fn check_stored(value: &Value) -> Result<(), Error> {
    Size::of(value).map(|_| ())
}

/// A list, tuple or the like.
pub(super) fn new(budget: &Budget, kind: Kind, items: Vec<Value>) -> Result<Value, Error> {
    budget.make(items.len().saturating_mul(size_of::<Value>()).saturating_add(LIST_BYTES))?;
    let size = Size::of_all(items.iter())?;
    Ok(Value::from_object(Sequence { kind, items, names: &[], size }))
}

/// What `groupby` yields: a tuple whose items have names.
pub(super) fn group(grouper: Value, list: Value) -> Result<Value, Error> {
    let items = vec![grouper, list];
    let size = Size::of_all(items.iter())?;
    Ok(Value::from_object(Sequence { kind: Kind::Tuple, items, names: &["grouper", "list"], size }))
}

pub(crate) fn list(budget: &Budget, items: Vec<Value>) -> Result<Value, Error> {
    new(budget, Kind::List, items)
}

/// A map; a key that comes again has its last value, and its first place.
pub(crate) fn dict(budget: &Budget, pairs: Vec<(Value, Value)>) -> Result<Value, Error> {
    budget.make(pairs.len().saturating_mul(ENTRY_BYTES).saturating_add(MAP_BYTES))?;
    let mut index: HashMap<Value, usize> = HashMap::with_capacity(pairs.len());
    let mut kept: Vec<(Value, Value)> = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        check_key(&key)?;
        budget.work(weight(&key))?;
        match index.entry(normalised(&key)) {
            std::collections::hash_map::Entry::Occupied(at) => kept[*at.get()].1 = value,
            std::collections::hash_map::Entry::Vacant(at) => {
                at.insert(kept.len());
                kept.push((key, value));
            }
        }
    }
    let size = Size::of_all(kept.iter().flat_map(|(key, value)| [key, value]))?;
    Ok(Value::from_object(Dict { pairs: kept, index, size }))
}

/// Lists and maps have no hash.
pub(super) fn check_key(key: &Value) -> Result<(), Error> {
    let hashable = match sequence(key) {
        Some(sequence) if sequence.kind == Kind::Tuple => {
            sequence.size.bytes < 64 << 10 && sequence.items.iter().all(|item| check_key(item).is_ok())
        }
        Some(sequence) => matches!(sequence.kind, Kind::Range(..)) && sequence.items.len() < 64,
        None => key.as_object().is_none(),
    };
    if hashable { Ok(()) } else { Err(wrong(format!("unhashable type: '{}'", type_name(key)))) }
}

/// `true` and 1 are the same key, as are 1 and 1.0.
fn normalised(key: &Value) -> Value {
    match bool::try_from(key.clone()) {
        Ok(flag) if key.kind() == ValueKind::Bool => Value::from(i64::from(flag)),
        _ => key.clone(),
    }
}

pub(super) fn sequence(value: &Value) -> Option<&Sequence> {
    value.downcast_object_ref()
}

pub(super) fn as_dict(value: &Value) -> Option<&Dict> {
    value.downcast_object_ref()
}

/// An object of minijinja: a macro, a namespace, a loop, or one of our functions.
pub(super) fn as_other(value: &Value) -> Option<&DynObject> {
    value.as_object().filter(|_| sequence(value).is_none() && as_dict(value).is_none())
}

/// A namespace, whose type minijinja keeps to itself: an object with attributes that isn't a loop.
pub(super) fn is_namespace(value: &Value) -> bool {
    as_other(value).is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// Bytes of the value, with all that it holds: what comparing it takes.
pub(super) fn weight(value: &Value) -> u64 {
    if let Some(sequence) = sequence(value) {
        return sequence.size.bytes;
    }
    if let Some(dict) = as_dict(value) {
        return dict.size.bytes;
    }
    value.as_str().map_or(0, |text| text.len() as u64) + ITEM_BYTES
}

/// Bytes of a string; what holds others counts as one value.
pub(super) fn own_weight(value: &Value) -> u64 {
    value.as_str().map_or(0, |text| text.len() as u64) + ITEM_BYTES
}

/// The name of the value's type in Python.
pub(super) fn type_name(value: &Value) -> &'static str {
    if let Some(sequence) = sequence(value) {
        return sequence.kind.name();
    }
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        _ if as_dict(value).is_some() => "dict",
        _ if is_namespace(value) => "Namespace",
        _ => "object",
    }
}

/// What a loop over the value yields.
pub(super) fn items(budget: &Budget, value: &Value) -> Result<Vec<Value>, Error> {
    let count = |n: usize| budget.make(n.saturating_mul(size_of::<Value>()));
    if let Some(text) = value.as_str() {
        count(text.len())?;
        return Ok(text.chars().map(Value::from).collect());
    }
    if let Some(sequence) = sequence(value) {
        count(sequence.items.len())?;
        return Ok(sequence.items.clone());
    }
    if let Some(dict) = as_dict(value) {
        count(dict.pairs.len())?;
        return Ok(dict.pairs.iter().map(|(key, _)| key.clone()).collect());
    }
    if value.is_undefined() {
        return Ok(Vec::new());
    }
    Err(wrong(format!("'{}' object is not iterable", type_name(value))))
}

/// Python's `len(value)`.
pub(super) fn length(value: &Value) -> Result<usize, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().count());
    }
    match sequence(value) {
        Some(sequence) if sequence.kind != Kind::Iterator => return Ok(sequence.items.len()),
        _ => {}
    }
    if let Some(dict) = as_dict(value) {
        return Ok(dict.pairs.len());
    }
    if value.is_undefined() {
        return Ok(0);
    }
    Err(wrong(format!("object of type '{}' has no len()", type_name(value))))
}

/// Refuses a value that is undefined where jinja2 does.
pub(super) fn defined(value: &Value, message: &str) -> Result<(), Error> {
    if value.is_undefined() { Err(undefined(message)) } else { Ok(()) }
}
