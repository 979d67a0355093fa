//! The tree that hyperbolic points imply.

use super::drawing;
use super::markup::{Markup, Px};
use crate::geometry::{Ball, ancestor_depth};
use rayon::prelude::*;

/// Leaves of a tree; pairs grow with the square.
pub(super) const LEAVES: usize = 160;

/// A binary tree over points of the ball.
///
/// As HypHC decodes it: pairs are merged in the order of the depth of their
/// lowest common ancestor, the deepest first.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// Distance of each leaf from the origin.
    pub(super) leaves: Vec<f64>,
    /// What was merged, in that order. Node numbers below the number of
    /// leaves are leaves; the others count on in the order of the merges.
    pub(super) merges: Vec<Merge>,
}

/// Two nodes and the depth of the node that they make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merge {
    pub(super) nodes: [usize; 2],
    pub(super) depth: f64,
}

impl Tree {
    pub(super) fn of(ball: &Ball<f64>, points: &[Vec<f64>]) -> Self {
        let origin = vec![0.0; points.first().map_or(0, Vec::len)];
        let leaves: Vec<f64> = points.iter().map(|p| ball.distance(&origin, p)).collect();
        let scale = ball.c().sqrt();
        let mut pairs: Vec<(f64, usize, usize)> = (0..points.len())
            .into_par_iter()
            .flat_map_iter(|a| {
                (a + 1..points.len())
                    .map(move |b| (ancestor_depth(ball, &points[a], &points[b]), a, b))
            })
            .collect();
        pairs.sort_by(|x, y| y.0.total_cmp(&x.0).then((x.1, x.2).cmp(&(y.1, y.2))));
        // The node that each leaf hangs below so far.
        let mut top: Vec<usize> = (0..points.len()).collect();
        let mut merges = Vec::with_capacity(points.len().saturating_sub(1));
        for (depth, a, b) in pairs {
            let nodes = [top[a], top[b]];
            if nodes[0] == nodes[1] {
                continue;
            }
            let new = points.len() + merges.len();
            merges.push(Merge {
                nodes,
                // In the units of the ball's distance, as the leaves are.
                depth: depth / scale,
            });
            for node in &mut top {
                if nodes.contains(node) {
                    *node = new;
                }
            }
        }
        Self { leaves, merges }
    }

    /// Leaves from the first to the last of a drawing without crossings.
    pub(super) fn order(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.leaves.len());
        let mut waiting = vec![self.root()];
        while let Some(node) = waiting.pop() {
            match node.checked_sub(self.leaves.len()) {
                None if node < self.leaves.len() => order.push(node),
                None => {}
                Some(merge) => {
                    if let Some(merge) = self.merges.get(merge) {
                        waiting.extend(merge.nodes.iter().rev());
                    }
                }
            }
        }
        order
    }

    /// The tree in Newick's format, with the lengths of branches.
    pub(super) fn newick(&self, names: &[String]) -> String {
        let depth = |node: usize| self.depth(node);
        let mut texts: Vec<String> = names
            .iter()
            .map(|name| format!("'{}'", name.replace('\'', "''")))
            .collect();
        for (at, merge) in self.merges.iter().enumerate() {
            let own = depth(self.leaves.len() + at);
            let part = |node: usize, texts: &[String]| {
                format!("{}:{:.4}", texts[node], (depth(node) - own).max(0.0))
            };
            let text = format!(
                "({},{})",
                part(merge.nodes[0], &texts),
                part(merge.nodes[1], &texts)
            );
            texts.push(text);
        }
        texts.pop().unwrap_or_default() + ";"
    }

    /// The node above all others.
    fn root(&self) -> usize {
        (self.leaves.len() + self.merges.len()).saturating_sub(1)
    }

    fn depth(&self, node: usize) -> f64 {
        match node.checked_sub(self.leaves.len()) {
            None => self.leaves[node],
            Some(at) => self.merges[at].depth,
        }
    }

    /// Draws the tree from the origin on the left to the leaves on the right.
    pub(super) fn draw(&self, markup: &mut Markup, names: &[String], colours: &[&str]) {
        const WIDTH: f64 = 640.0;
        const LABEL: f64 = 190.0;
        const ROW: f64 = 18.0;
        let order = self.order();
        let height = order.len() as f64 * ROW + 34.0;
        let deepest = self
            .leaves
            .iter()
            .copied()
            .fold(f64::MIN_POSITIVE, f64::max);
        let x = |depth: f64| 10.0 + depth / deepest * (WIDTH - LABEL - 20.0);
        drawing::begin(
            markup,
            "tree",
            [WIDTH, height],
            "Tree of the proxies",
            format_args!(
                "The {} proxies, merged from the deepest common ancestor to the shallowest; in the order of the drawing: {}.",
                order.len(),
                order
                    .iter()
                    .map(|&leaf| names[leaf].as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        );
        let mut rows = vec![0.0; self.leaves.len() + self.merges.len()];
        for (row, &leaf) in order.iter().enumerate() {
            rows[leaf] = row as f64 * ROW + 14.0;
            let (at, y) = (x(self.leaves[leaf]), rows[leaf]);
            markup.empty(
                "circle",
                &[
                    ("cx", &Px(at)),
                    ("cy", &Px(y)),
                    ("r", &3.5),
                    ("fill", &colours[leaf]),
                ],
            );
            markup.element(
                "text",
                &[("x", &Px(at + 8.0)), ("y", &Px(y + 4.0))],
                &names[leaf],
            );
        }
        for (at, merge) in self.merges.iter().enumerate() {
            let [a, b] = merge.nodes;
            let here = x(merge.depth);
            rows[self.leaves.len() + at] = f64::midpoint(rows[a], rows[b]);
            let path = format!(
                "M{} {}H{}V{}H{}",
                Px(x(self.depth(a))),
                Px(rows[a]),
                Px(here),
                Px(rows[b]),
                Px(x(self.depth(b)))
            );
            markup.empty("path", &[("class", &"branch"), ("d", &path)]);
        }
        // From the origin to the root.
        if let (Some(root), Some(row)) = (self.merges.last(), rows.last()) {
            let path = format!("M10 {}H{}", Px(*row), Px(x(root.depth)));
            markup.empty("path", &[("class", &"branch"), ("d", &path)]);
        }
        markup.element(
            "text",
            &[("x", &10), ("y", &Px(height - 8.0))],
            format_args!("0 (origin) to {deepest:.2}: distance from the origin"),
        );
        markup.close();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn points_in_one_direction_merge_first() {
        let ball = Ball::new(1.0).unwrap();
        let at = |angle: f64| vec![0.9 * angle.cos(), 0.9 * angle.sin()];
        // Two pairs, and one alone on the other side.
        let points = [at(0.0), at(2.0), at(0.1), at(2.1), at(4.0)];
        let tree = Tree::of(&ball, &points);
        assert_eq!(tree.merges.len(), 4);
        let first: Vec<[usize; 2]> = tree.merges[..2].iter().map(|m| m.nodes).collect();
        assert!(first.contains(&[0, 2]) && first.contains(&[1, 3]));
        assert!(tree.merges.windows(2).all(|m| m[0].depth >= m[1].depth));
        let names = ["a", "b", "c", "d's", "e"].map(str::to_owned);
        let newick = tree.newick(&names);
        assert!(newick.contains("'d''s'") && newick.ends_with(");"));
        assert_eq!(newick.matches('(').count(), 4);
        let order = tree.order();
        assert_eq!(order.len(), 5);
        let place = |leaf: usize| order.iter().position(|&l| l == leaf).unwrap();
        assert_eq!(place(0).abs_diff(place(2)), 1);
    }

    #[test]
    fn one_leaf_or_none_is_a_tree() {
        let ball = Ball::new(0.1).unwrap();
        let tree = Tree::of(&ball, &[vec![0.1, 0.2]]);
        assert_eq!(tree.order(), [0]);
        assert_eq!(tree.newick(&["x".to_owned()]), "'x';");
        let tree = Tree::of(&ball, &[]);
        assert!(tree.order().is_empty());
        assert_eq!(tree.newick(&[]), ";");
    }
}
