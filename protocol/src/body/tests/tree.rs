//! Any JSON as a tree without order, to compare texts that differ in hash order only.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::json::read;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tree {
    Leaf(String),
    /// Sorted: most lists of Java are sets.
    List(Vec<Tree>),
    Object(BTreeMap<String, Tree>),
}

impl Tree {
    pub(super) fn of(bytes: &[u8]) -> Self {
        read(bytes).unwrap()
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

macro_rules! leaves {
    ($($method:ident $type:ty),+) => {$(
        fn $method<E>(self, value: $type) -> Result<Tree, E> {
            Ok(Tree::Leaf(format!("{value:?}")))
        }
    )+};
}

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("anything")
    }

    leaves! { visit_bool bool, visit_i64 i64, visit_f64 f64, visit_str &str }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf("null".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut trees = Vec::new();
        while let Some(tree) = list.next_element()? {
            trees.push(tree);
        }
        trees.sort();
        Ok(Tree::List(trees))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Tree, A::Error> {
        let mut trees = BTreeMap::new();
        while let Some((key, tree)) = object.next_entry()? {
            trees.insert(key, tree);
        }
        Ok(Tree::Object(trees))
    }
}
