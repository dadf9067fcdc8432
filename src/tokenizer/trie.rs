//! Texts of tokens as a tree of bytes, which finds every token that a text begins with in one walk.
//! Children of a node stand side by side, in the order of their bytes.

use super::VOCABULARY;
use crate::error::{Error, Result, quoted};
use crate::memory::reserve::{reserve, with_room};

#[derive(Clone, Copy)]
struct Node {
    /// The byte on the way from the parent.
    byte: u8,
    n_children: u16,
    first_child: u32,
    /// The token that ends here.
    token: Option<u32>,
}

/// A tree of the texts of tokens.
pub(super) struct Trie {
    /// The root first.
    nodes: Vec<Node>,
}

impl Trie {
    /// The tree of some tokens, each a text that isn't empty and an id.
    ///
    /// # Errors
    /// [`Error::Format`] for a text that occurs twice; [`Error::OutOfMemory`].
    pub(super) fn new(mut tokens: Vec<(&str, u32)>) -> Result<Self> {
        tokens.sort_unstable();
        if let Some(pair) = tokens.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (text, first, second) = (quoted(pair[0].0), pair[0].1, pair[1].1);
            return Err(Error::format(format!("tokens {first} and {second} are both {text}")));
        }
        let mut nodes = with_room(tokens.len() + 1, VOCABULARY)?;
        // The tokens below each node: they agree in the bytes on the way there.
        let mut below = with_room(tokens.len() + 1, VOCABULARY)?;
        nodes.push(Node { byte: 0, n_children: 0, first_child: 0, token: None });
        below.push((0, tokens.len(), 0));
        let mut at = 0;
        while at < nodes.len() {
            let (mut from, to, depth) = below[at];
            if from < to && tokens[from].0.len() == depth {
                nodes[at].token = Some(tokens[from].1);
                from += 1;
            }
            nodes[at].first_child = nodes.len() as u32;
            while from < to {
                let byte = tokens[from].0.as_bytes()[depth];
                let same = tokens[from..to].partition_point(|(text, _)| text.as_bytes()[depth] == byte);
                nodes[at].n_children += 1;
                reserve(&mut nodes, 1, VOCABULARY)?;
                nodes.push(Node { byte, n_children: 0, first_child: 0, token: None });
                reserve(&mut below, 1, VOCABULARY)?;
                below.push((from, from + same, depth + 1));
                from += same;
            }
            at += 1;
        }
        Ok(Self { nodes })
    }

    /// Calls `found` with length and id of each token that `text` begins with, the shortest first.
    pub(super) fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let mut node = self.nodes[0];
        for (depth, &byte) in text.iter().enumerate() {
            let first = node.first_child as usize;
            let children = &self.nodes[first..first + usize::from(node.n_children)];
            let Ok(child) = children.binary_search_by_key(&byte, |node| node.byte) else { return };
            node = children[child];
            if let Some(token) = node.token {
                found(depth + 1, token);
            }
        }
    }

    /// The token with this text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        let mut id = None;
        self.prefixes(text.as_bytes(), |length, token| id = Some(token).filter(|_| length == text.len()));
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_token_that_a_text_begins_with() {
        let trie = Trie::new(vec![("ab", 7), ("a", 3), ("abcé", 1), ("b", 2)]).unwrap();
        let prefixes = |text: &str| {
            let mut found = Vec::new();
            trie.prefixes(text.as_bytes(), |length, id| found.push((length, id)));
            found
        };
        assert_eq!(prefixes("abcéx"), [(1, 3), (2, 7), (5, 1)]);
        assert_eq!(prefixes("abc"), [(1, 3), (2, 7)]);
        assert_eq!(prefixes("ca"), []);
        assert_eq!(
            (trie.id("abcé"), trie.id("abc"), trie.id("b"), trie.id("")),
            (Some(1), None, Some(2), None)
        );
    }

    #[test]
    fn an_empty_tree_finds_nothing() {
        assert_eq!(Trie::new(Vec::new()).unwrap().id("a"), None);
    }

    #[test]
    fn two_tokens_of_one_text_are_refused() {
        let error = Trie::new(vec![("a", 1), ("b", 2), ("a", 3)]).err().unwrap();
        assert_eq!(error.to_string(), "bad file: tokens 1 and 3 are both \"a\"");
    }
}
