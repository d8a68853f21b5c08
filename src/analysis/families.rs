//! Families of features: a general one and the special ones that fire with it.

use crate::monitor::Accumulator;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use pathfinding::undirected::kruskal::kruskal;

/// How [`families`] are found; the defaults are the paper's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FamilyOptions {
    /// Shares of rows below this are no edge: 0.1.
    pub least: f64,
    /// How often the parents are removed and the families of the rest sought: 3.
    pub rounds: usize,
    /// A family whose children overlap with a larger one's by more than this is dropped: 0.6.
    pub overlap: f64,
}

impl Default for FamilyOptions {
    fn default() -> Self {
        FamilyOptions {
            least: 0.1,
            rounds: 3,
            overlap: 0.6,
        }
    }
}

/// A feature and those below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// The feature that fires most.
    pub parent: u32,
    /// All features below it, ascending.
    pub children: Vec<u32>,
}

/// Families among the co-occurrence set of an accumulator: the edge of two features is
/// `C_ij / (min(C_ii, C_jj) + 1)`, if it is not below `least`; over the maximum spanning forest each
/// edge goes from the feature that fires more to the other (equal: from the lower index); a feature
/// without an edge into it and with more than two out of it is the parent of all that it reaches.
/// Parents are removed, and the rest is searched again. The published code exponentiates the edges,
/// which changes no spanning tree, and keeps whichever of the two directions it wrote last.
pub fn families(of: &Accumulator, options: &FamilyOptions) -> Vec<Family> {
    let mut left: Vec<u32> = of.collect().cooccurrence.clone();
    let count = |a: u32, b: u32| of.pair(a, b).unwrap_or(0);
    let mut found: Vec<Family> = Vec::new();
    for _ in 0..=options.rounds {
        let mut edges: Vec<(f64, u32, u32)> = Vec::new();
        for (at, &a) in left.iter().enumerate() {
            for &b in left.get(at + 1..).unwrap_or(&[]) {
                let least = count(a, a).min(count(b, b)) as f64;
                let share = count(a, b) as f64 / (least + 1.0);
                if share > 0.0 && share >= options.least {
                    edges.push((share, a, b));
                }
            }
        }
        edges.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
        // By rank, so that equal shares have one order.
        let ranked = edges.iter().enumerate();
        let ranked: Vec<(u32, u32, usize)> =
            ranked.map(|(rank, edge)| (edge.1, edge.2, rank)).collect();
        let tree: Vec<(u32, u32)> = kruskal(&ranked)
            .map(|(&a, &b, _)| {
                let (a, b) = (a.min(b), a.max(b));
                if count(a, a) >= count(b, b) {
                    (a, b)
                } else {
                    (b, a)
                }
            })
            .collect();
        let out = |node: u32| {
            tree.iter()
                .filter(move |edge| edge.0 == node)
                .map(|edge| edge.1)
        };
        let roots = left
            .iter()
            .copied()
            .filter(|&node| !tree.iter().any(|edge| edge.1 == node) && out(node).count() > 2);
        let roots: Vec<u32> = roots.collect();
        for &parent in &roots {
            let mut children: BTreeSet<u32> = BTreeSet::new();
            let mut open: Vec<u32> = out(parent).collect();
            while let Some(node) = open.pop() {
                if children.insert(node) {
                    open.extend(out(node));
                }
            }
            found.push(Family {
                parent,
                children: children.into_iter().collect(),
            });
        }
        if roots.is_empty() {
            break;
        }
        left.retain(|feature| !roots.contains(feature));
    }
    // The larger one stays; the earlier among equals.
    found.sort_by_key(|family| core::cmp::Reverse(family.children.len()));
    let mut kept: Vec<Family> = Vec::new();
    for family in found {
        let twice =
            |other: &Family| super::jaccard(&other.children, &family.children) > options.overlap;
        if !kept.iter().any(twice) {
            kept.push(family);
        }
    }
    kept
}
