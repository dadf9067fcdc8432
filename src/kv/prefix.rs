//! The index of prefixes: whole pages of tokens whose keys and values have been computed, as a tree. A node is a page of
//! tokens behind those of its parent, and holds the page of each group that has their keys and values. Nodes are found
//! by a hash of the tokens and of the parent's hash; since two texts may have the same hash, tokens are compared too.
//! Pages that no sequence uses any more stay until they are needed; those that were used least recently go first.
//!
//! All memory is reserved when the index is made.

use std::hash::{BuildHasher, RandomState};

use super::pages::{BlockTable, NO_NODE, Pool};
use super::{TILE, WHAT};
use crate::error::Result;
use crate::kernels::attention::NO_PAGE;
use crate::memory::reserve::{filled, with_room};

/// A node, by its number.
pub(super) type NodeId = u32;

/// The parent of nodes whose pages begin texts, and the end of lists.
const NONE: NodeId = NO_NODE;

/// Computes the hash of a page of tokens behind a text with a hash.
type Hash = Box<dyn Fn(u64, &[u32]) -> u64 + Send + Sync>;

/// The links of a node.
#[derive(Clone, Copy, Debug)]
struct Node {
    hash: u64,
    parent: NodeId,
    /// The first child, and the neighbours in the list of the parent's children.
    child: NodeId,
    next: NodeId,
    previous: NodeId,
    /// The next node of the same bucket; of a free node, the next free one.
    chained: NodeId,
    /// Neighbours in the list of all nodes by their last use.
    newer: NodeId,
    older: NodeId,
}

const EMPTY: Node = Node {
    hash: 0,
    parent: NONE,
    child: NONE,
    next: NONE,
    previous: NONE,
    chained: NONE,
    newer: NONE,
    older: NONE,
};

/// The index of prefixes of a cache.
pub(super) struct Index {
    hash: Hash,
    groups: usize,
    nodes: Vec<Node>,
    /// The tokens of each node: [`TILE`].
    tokens: Vec<u32>,
    /// The page of each group that each node holds, or [`NO_PAGE`].
    pages: Vec<u32>,
    /// The first node of each bucket; the number of buckets is a power of two.
    buckets: Vec<NodeId>,
    free: NodeId,
    newest: NodeId,
    oldest: NodeId,
}

impl Index {
    /// An empty index of up to `capacity` nodes.
    pub fn new(capacity: usize, groups: usize) -> Result<Index> {
        let state = RandomState::new();
        Self::with_hash(capacity, groups, Box::new(move |hash, tokens| state.hash_one((hash, tokens))))
    }

    /// [`Index::new`] with a hash of the caller's.
    pub(super) fn with_hash(capacity: usize, groups: usize, hash: Hash) -> Result<Index> {
        let mut nodes = with_room(capacity, WHAT)?;
        let chained = |i| if i + 1 < capacity { (i + 1) as NodeId } else { NONE };
        nodes.extend((0..capacity).map(|i| Node { chained: chained(i), ..EMPTY }));
        Ok(Index {
            hash,
            groups,
            nodes,
            tokens: filled(0, capacity.saturating_mul(TILE), WHAT)?,
            pages: filled(NO_PAGE, capacity.saturating_mul(groups), WHAT)?,
            buckets: filled(NONE, capacity.next_power_of_two(), WHAT)?,
            free: if capacity > 0 { 0 } else { NONE },
            newest: NONE,
            oldest: NONE,
        })
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    /// The page of a group that a node holds.
    pub fn page(&self, id: NodeId, group: usize) -> Option<u32> {
        Some(self.pages[id as usize * self.groups + group]).filter(|&page| page != NO_PAGE)
    }

    /// Lets a node hold a page of a group, which stands in a table.
    fn hold(&mut self, pools: &mut [Pool], id: NodeId, group: usize, page: u32) {
        self.pages[id as usize * self.groups + group] = page;
        pools[group].hold(page, id);
    }

    /// The node that a page's tokens have behind a parent, and their hash.
    fn child(&self, parent: Option<NodeId>, tokens: &[u32]) -> (Option<NodeId>, u64) {
        let hash = (self.hash)(parent.map_or(0, |parent| self.node(parent).hash), tokens);
        let parent = parent.unwrap_or(NONE);
        let mut at = self.buckets[self.bucket(hash)];
        while at != NONE {
            let node = self.node(at);
            let same = node.hash == hash && node.parent == parent;
            if same && self.tokens[at as usize * TILE..][..TILE] == *tokens {
                return (Some(at), hash);
            }
            at = node.chained;
        }
        (None, hash)
    }

    /// The last node of the longest known run of whole pages that `tokens` begin with, and the number of its pages.
    pub fn find(&self, tokens: &[u32]) -> Option<(NodeId, usize)> {
        let (mut last, mut parent) = (None, None);
        for (i, page) in tokens.chunks_exact(TILE).enumerate() {
            let Some(node) = self.child(parent, page).0 else { break };
            (parent, last) = (Some(node), Some((node, i + 1)));
        }
        last
    }

    /// The node before a node.
    pub fn parent(&self, id: NodeId) -> Option<NodeId> {
        Some(self.node(id).parent).filter(|&parent| parent != NONE)
    }

    /// Adds a page of tokens behind a parent, unless the index knows it, and returns its node; `None` where the index is
    /// full of nodes before it.
    pub fn add(&mut self, pools: &mut [Pool], parent: Option<NodeId>, tokens: &[u32]) -> Option<NodeId> {
        let (known, hash) = self.child(parent, tokens);
        if known.is_some() {
            return known;
        }
        if self.free == NONE {
            let oldest = self.oldest;
            if oldest == NONE || self.stands_before(oldest, parent) {
                return None;
            }
            self.remove(pools, oldest);
        }
        let (id, bucket) = (self.free, self.bucket(hash));
        self.free = self.node(id).chained;
        let parent = parent.unwrap_or(NONE);
        let next = if parent == NONE { NONE } else { self.node(parent).child };
        *self.node_mut(id) = Node { hash, parent, next, chained: self.buckets[bucket], ..EMPTY };
        self.buckets[bucket] = id;
        if parent != NONE {
            self.node_mut(parent).child = id;
        }
        if next != NONE {
            self.node_mut(next).previous = id;
        }
        self.tokens[id as usize * TILE..][..TILE].copy_from_slice(tokens);
        self.link_newest(id);
        Some(id)
    }

    /// Whether `id` is a node or stands before it.
    fn stands_before(&self, id: NodeId, node: Option<NodeId>) -> bool {
        std::iter::successors(node, |&node| self.parent(node)).any(|node| node == id)
    }

    /// Gives a node the pages of a table's entry, where it has none; where it has one, the table gets that page instead of
    /// its own, since both have the same bits.
    pub fn merge(&mut self, pools: &mut [Pool], id: NodeId, tables: &mut [BlockTable], entry: usize) {
        for (group, table) in tables.iter_mut().enumerate() {
            let own = table.pages()[entry];
            match self.page(id, group) {
                _ if own == NO_PAGE => {}
                Some(page) if page != own => pools[group].set(table, entry, page),
                None if pools[group].holder(own).is_none() => self.hold(pools, id, group, own),
                _ => {}
            }
        }
    }

    /// Marks a node and those before it as used now, the first one last.
    pub fn touch(&mut self, id: NodeId) {
        let mut at = Some(id);
        while let Some(id) = at {
            self.unlink(id);
            self.link_newest(id);
            at = self.parent(id);
        }
    }

    fn link_newest(&mut self, id: NodeId) {
        let older = std::mem::replace(&mut self.newest, id);
        (self.node_mut(id).older, self.node_mut(id).newer) = (older, NONE);
        match older {
            NONE => self.oldest = id,
            older => self.node_mut(older).newer = id,
        }
    }

    fn unlink(&mut self, id: NodeId) {
        let Node { newer, older, .. } = *self.node(id);
        match newer {
            NONE => self.newest = older,
            newer => self.node_mut(newer).older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.node_mut(older).newer = newer,
        }
    }

    /// Removes a node and all behind it.
    pub fn remove(&mut self, pools: &mut [Pool], id: NodeId) {
        let mut at = id;
        loop {
            while self.node(at).child != NONE {
                at = self.node(at).child;
            }
            let parent = self.node(at).parent;
            self.remove_leaf(pools, at);
            if at == id {
                return;
            }
            at = parent;
        }
    }

    fn remove_leaf(&mut self, pools: &mut [Pool], id: NodeId) {
        for (group, pool) in pools.iter_mut().enumerate() {
            self.drop_page(pool, id, group);
        }
        self.unlink(id);
        let Node { hash, parent, next, previous, chained, .. } = *self.node(id);
        if next != NONE {
            self.node_mut(next).previous = previous;
        }
        match (previous, parent) {
            (NONE, NONE) => {}
            (NONE, parent) => self.node_mut(parent).child = next,
            (previous, _) => self.node_mut(previous).next = next,
        }
        let bucket = self.bucket(hash);
        if self.buckets[bucket] == id {
            self.buckets[bucket] = chained;
        } else {
            let mut before = self.buckets[bucket];
            while self.node(before).chained != id {
                before = self.node(before).chained;
            }
            self.node_mut(before).chained = chained;
        }
        *self.node_mut(id) = Node { chained: self.free, ..EMPTY };
        self.free = id;
    }

    fn drop_page(&mut self, pool: &mut Pool, id: NodeId, group: usize) {
        let page = std::mem::replace(&mut self.pages[id as usize * self.groups + group], NO_PAGE);
        if page != NO_PAGE {
            pool.unhold(page);
        }
    }

    /// Frees the least recently used page of a group that no sequence uses. A node of a group with a window goes on
    /// without the page; other nodes go with it.
    pub fn evict(&mut self, pools: &mut [Pool], group: usize) {
        let mut at = self.oldest;
        while at != NONE {
            if self.page(at, group).is_some_and(|page| pools[group].is_unused(page)) {
                match pools[group].group().reach {
                    Some(_) => self.drop_page(&mut pools[group], at, group),
                    None => self.remove(pools, at),
                }
                return;
            }
            at = self.node(at).newer;
        }
    }

    /// Removes all nodes.
    pub fn clear(&mut self, pools: &mut [Pool]) {
        while self.oldest != NONE {
            self.remove(pools, self.oldest);
        }
    }
    /// Checks the lists against each other, and holds against the pools.
    #[cfg(test)]
    pub fn audit(&self, pools: &[Pool]) {
        let mut held = vec![0; self.groups];
        let (mut at, mut older, mut live) = (self.oldest, NONE, 0);
        while at != NONE {
            let node = *self.node(at);
            assert_eq!(node.older, older);
            let tokens = &self.tokens[at as usize * TILE..][..TILE];
            assert_eq!(self.child(self.parent(at), tokens).0, Some(at), "found by its tokens");
            if let Some(parent) = self.parent(at) {
                let mut children = std::iter::successors(Some(self.node(parent).child), |&child| {
                    Some(self.node(child).next).filter(|&child| child != NONE)
                });
                assert!(children.any(|child| child == at));
            }
            for (group, pool) in pools.iter().enumerate() {
                if let Some(page) = self.page(at, group) {
                    assert_eq!(pool.holder(page), Some(at));
                    held[group] += 1;
                }
            }
            (older, at, live) = (at, node.newer, live + 1);
        }
        assert_eq!(older, self.newest);
        for (pool, held) in pools.iter().zip(held) {
            assert_eq!((0..pool.total() as u32).filter(|&page| pool.holder(page).is_some()).count(), held);
        }
        let free = |at: &NodeId| Some(self.node(*at).chained).filter(|&at| at != NONE);
        let free = std::iter::successors(Some(self.free).filter(|&at| at != NONE), free).count();
        assert_eq!(free + live, self.nodes.len());
    }
}
