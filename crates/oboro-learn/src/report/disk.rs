//! Hyperbolic embeddings on the Poincaré disk.

use super::drawing;
use super::map::{ITEMS, check, chosen};
use super::marks::{MARKS, colour, legend, outline};
use super::markup::{Markup, Px};
use super::plane::Plane;
use super::tree::{LEAVES, Tree};
use crate::LearnError;
use crate::geometry::Ball;
use oboro_vectors::Matrix;
use std::collections::BTreeMap;
use std::fmt::Write;

const SIDE: f64 = 600.0;
const RADIUS: f64 = 284.0;
/// Proxies of a disk or tree whose names can be read.
const NAMED: usize = 40;
/// Width of a letter and distance of lines of names.
const LETTER: f64 = 7.0;
const LINE: f64 = 13.0;

/// Points of the Poincaré ball with the class of each.
#[derive(Clone, Copy, Debug)]
pub struct Points<'a> {
    /// The points.
    pub points: &'a Matrix<f32>,
    /// The class of each.
    pub labels: &'a [u32],
    /// The names of the classes.
    pub classes: &'a [String],
}

/// Embedded items and proxies on the Poincaré disk, and the tree of the
/// proxies.
///
/// # How the ball becomes a disk
/// Points are taken to the tangent space at the origin (the logarithmic map),
/// seen along the two directions that hold most of their squared lengths, and
/// put on the disk in the direction seen there, at their true hyperbolic
/// distance from the origin. So depth is true, and angles are as true as two
/// dimensions can make them. The tree is computed from all dimensions.
#[derive(Clone, Debug)]
pub struct Disk {
    items: Vec<(usize, [f64; 2])>,
    item_classes: Vec<String>,
    proxies: Vec<[f64; 2]>,
    /// The number of each proxy's class among the items', if they have it.
    proxy_classes: Vec<Option<usize>>,
    names: Vec<String>,
    tree: Tree,
    total: [usize; 2],
    share: f64,
}

impl Disk {
    /// The disk of items and proxies in the ball of curvature `-curvature`.
    /// At most 28 classes of items, 120 of each, and 160 proxies are shown.
    ///
    /// # Errors
    /// When points and labels differ in number, a label has no class, the two
    /// differ in dimension, or a point lies outside the ball.
    pub fn of(items: Points<'_>, proxies: Points<'_>, curvature: f64) -> Result<Self, LearnError> {
        let ball = Ball::new(curvature)?;
        for (points, what) in [(&items, "the items' points"), (&proxies, "the proxies")] {
            check(points.points, points.labels, points.classes, what)?;
            let inside = |row: &[f32]| ball.contains(&wide(row));
            if let Some(row) = points.points.iter().position(|row| !inside(row)) {
                return Err(LearnError::OutsideBall {
                    what,
                    row,
                    curvature,
                });
            }
        }
        if items.points.dimension() != proxies.points.dimension() {
            return Err(LearnError::Length {
                what: "a proxy",
                actual: proxies.points.dimension(),
                expected: items.points.dimension(),
            });
        }
        let shown = chosen(items.labels, MARKS, ITEMS);
        let leaves: Vec<(u32, usize)> = chosen(proxies.labels, LEAVES, LEAVES)
            .into_iter()
            .take(LEAVES)
            .collect();
        let rows = |points: &Matrix<f32>, of: &[(u32, usize)]| -> Vec<Vec<f64>> {
            of.iter().map(|&(_, row)| wide(points.row(row))).collect()
        };
        let (item_rows, leaf_rows) = (rows(items.points, &shown), rows(proxies.points, &leaves));

        let tangents: Vec<f32> = item_rows
            .iter()
            .chain(&leaf_rows)
            .flat_map(|row| ball.log0(row))
            .map(|value| value as f32)
            .collect();
        let tangents =
            Matrix::new(items.points.dimension(), tangents).map_err(|_| LearnError::Length {
                what: "the disk",
                actual: 0,
                expected: 1,
            })?;
        let plane = Plane::of(&tangents, false);
        let mut places =
            tangents
                .iter()
                .zip(item_rows.iter().chain(&leaf_rows))
                .map(|(tangent, row)| {
                    let [x, y] = plane.place(tangent);
                    // On the unit disk a point at hyperbolic distance d from the
                    // origin has this radius.
                    let radius = curvature.sqrt() * row.iter().map(|v| v * v).sum::<f64>().sqrt();
                    let seen = x.hypot(y);
                    let factor = if seen > 0.0 { radius / seen } else { 0.0 };
                    [x * factor, y * factor]
                });
        let mut numbers = BTreeMap::new();
        let mut item_classes = Vec::new();
        let placed_items = shown
            .iter()
            .zip(places.by_ref())
            .map(|(&(label, _), place)| {
                let number = *numbers.entry(label).or_insert_with(|| {
                    item_classes.push(items.classes[label as usize].clone());
                    item_classes.len() - 1
                });
                (number, place)
            })
            .collect();
        let placed_proxies = places.collect();
        // By name: what was trained on need not be what is looked at.
        let proxy_classes = leaves
            .iter()
            .map(|&(label, _)| {
                let name = &proxies.classes[label as usize];
                item_classes.iter().position(|other| other == name)
            })
            .collect();
        Ok(Self {
            items: placed_items,
            item_classes,
            proxies: placed_proxies,
            proxy_classes,
            names: leaf_names(&leaves, proxies.classes),
            tree: Tree::of(&ball, &leaf_rows),
            total: [items.labels.len(), proxies.labels.len()],
            share: plane.share,
        })
    }

    /// The tree of the proxies in Newick's format.
    #[must_use]
    pub fn newick(&self) -> String {
        self.tree.newick(&self.names)
    }

    pub(super) fn draw(&self, markup: &mut Markup) {
        drawing::begin(
            markup,
            "disk",
            [SIDE, SIDE],
            "Poincaré disk",
            format_args!(
                "{} items of {} classes and {} proxies with the tree above them; the nearer to the border, the farther from the origin.",
                self.items.len(),
                self.item_classes.len(),
                self.proxies.len()
            ),
        );
        let middle = SIDE / 2.0;
        markup.empty(
            "circle",
            &[
                ("class", &"border"),
                ("cx", &middle),
                ("cy", &middle),
                ("r", &RADIUS),
            ],
        );
        for (class, name) in self.item_classes.iter().enumerate() {
            let mut path = String::new();
            for (_, place) in self.items.iter().filter(|(of, _)| *of == class) {
                outline(class, on_page(*place), 2.8, &mut path);
            }
            markup.open(
                "path",
                &[
                    ("d", &path),
                    ("fill", &colour(class)),
                    ("fill-opacity", &0.6),
                ],
            );
            markup.element("title", &[], name);
            markup.close();
            markup.line();
        }
        self.draw_tree(markup);
        for (place, name) in self.proxies.iter().zip(&self.names) {
            let [x, y] = on_page(*place);
            markup.open(
                "circle",
                &[
                    ("class", &"proxy"),
                    ("cx", &Px(x)),
                    ("cy", &Px(y)),
                    ("r", &4.5),
                ],
            );
            markup.element("title", &[], format_args!("proxy of {name}"));
            markup.close();
        }
        self.draw_names(markup);
        markup.close();
        let names: Vec<(usize, &str)> = self
            .item_classes
            .iter()
            .enumerate()
            .map(|(number, name)| (number, name.as_str()))
            .collect();
        legend(markup, &names);
    }

    /// The names of the proxies, where there are few enough to be read.
    fn draw_names(&self, markup: &mut Markup) {
        if self.proxies.len() > NAMED {
            return;
        }
        let mut order: Vec<([f64; 2], &String)> = self
            .proxies
            .iter()
            .map(|&place| on_page(place))
            .zip(&self.names)
            .collect();
        order.sort_by(|(a, _), (b, _)| a[1].total_cmp(&b[1]).then(a[0].total_cmp(&b[0])));
        // Left and right end and middle line of the names drawn so far.
        let mut taken: Vec<[f64; 3]> = Vec::new();
        for ([x, y], name) in order {
            // Towards the border, where there is most room.
            let right = x >= SIDE / 2.0;
            let length = name.chars().count() as f64 * LETTER;
            let [from, to] = if right {
                [x + 8.0, x + 8.0 + length]
            } else {
                [x - 8.0 - length, x - 8.0]
            };
            let mut line = y;
            while let Some(other) = taken
                .iter()
                .find(|[l, r, m]| from < *r && to > *l && (m - line).abs() < LINE)
            {
                // A little more, or rounding could find the same one again.
                line = other[2] + LINE * 1.01;
            }
            taken.push([from, to, line]);
            markup.element(
                "text",
                &[
                    ("class", &"name"),
                    ("x", &Px(if right { from } else { to })),
                    ("y", &Px(line + 4.0)),
                    ("text-anchor", &(if right { "start" } else { "end" })),
                ],
                name,
            );
        }
    }

    /// Branches as geodesics; a node lies where the one between its children
    /// comes nearest to the origin.
    fn draw_tree(&self, markup: &mut Markup) {
        let mut places = self.proxies.clone();
        let mut path = String::new();
        for merge in &self.tree.merges {
            let [a, b] = merge.nodes.map(|node| places[node]);
            let node = nearest_to_origin(a, b);
            geodesic(a, node, &mut path);
            geodesic(b, node, &mut path);
            places.push(node);
        }
        markup.empty("path", &[("class", &"branch"), ("d", &path)]);
    }

    pub(super) fn draw_dendrogram(&self, markup: &mut Markup) {
        let colours: Vec<&str> = self
            .proxy_classes
            .iter()
            .map(|class| class.map_or("currentColor", colour))
            .collect();
        self.tree.draw(markup, &self.names, &colours);
    }

    /// What the disk shows, for the text below it.
    pub(super) fn words(&self) -> String {
        format!(
            "{} of {} items (filled) and {} of {} proxies (rings). A point's distance from the middle is its true hyperbolic distance from the origin; its direction is that of the two axes of the tangent space at the origin that hold most, {:.0} % of the squared lengths. Lines are the tree of the proxies, computed from all dimensions and drawn with geodesics.",
            self.items.len(),
            self.total[0],
            self.proxies.len(),
            self.total[1],
            self.share * 100.0
        )
    }
}

/// The class, with a number where it has several proxies.
fn leaf_names(leaves: &[(u32, usize)], classes: &[String]) -> Vec<String> {
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    for &(label, _) in leaves {
        *sizes.entry(label).or_insert(0) += 1;
    }
    let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
    leaves
        .iter()
        .map(|&(label, _)| {
            let number = seen.entry(label).or_insert(0);
            *number += 1;
            let class = &classes[label as usize];
            if sizes[&label] > 1 {
                format!("{class} {number}")
            } else {
                class.clone()
            }
        })
        .collect()
}

fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&value| f64::from(value)).collect()
}

fn on_page([x, y]: [f64; 2]) -> [f64; 2] {
    [SIDE / 2.0 + x * RADIUS, SIDE / 2.0 - y * RADIUS]
}

/// The circle that a geodesic of the unit disk lies on, at a right angle to
/// the border: its centre and radius; `None` for a straight line.
fn circle(a: [f64; 2], b: [f64; 2]) -> Option<([f64; 2], f64)> {
    // The centre m has 2 m.p = 1 + |p|^2 for every point p of the circle.
    let determinant = 2.0 * (a[0] * b[1] - a[1] * b[0]);
    let (s, t) = (
        1.0 + a[0] * a[0] + a[1] * a[1],
        1.0 + b[0] * b[0] + b[1] * b[1],
    );
    let centre = [
        (s * b[1] - t * a[1]) / determinant,
        (t * a[0] - s * b[0]) / determinant,
    ];
    let radius = (centre[0] * centre[0] + centre[1] * centre[1] - 1.0).sqrt();
    // Arcs of a thousand disks' radius are straight to the eye.
    (radius > 0.0 && radius < 1e3).then_some((centre, radius))
}

/// The point of the geodesic between `a` and `b` that is nearest to the
/// origin.
fn nearest_to_origin(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    let length = |p: [f64; 2]| p[0].hypot(p[1]);
    let end = if length(a) <= length(b) { a } else { b };
    let inner = match circle(a, b) {
        Some((centre, radius)) => {
            let factor = 1.0 - radius / length(centre);
            [centre[0] * factor, centre[1] * factor]
        }
        // A line through the origin, or nearly so.
        None => [0.0, 0.0],
    };
    // Within the geodesic where both ends lie on different sides of the ray
    // from the origin through the inner point.
    let side = |p: [f64; 2]| match circle(a, b) {
        Some((centre, _)) => centre[0] * p[1] - centre[1] * p[0],
        None => p[0] * a[0] + p[1] * a[1],
    };
    if side(a) * side(b) < 0.0 { inner } else { end }
}

/// Appends a geodesic, as an arc of a circle or a line.
fn geodesic(a: [f64; 2], b: [f64; 2], path: &mut String) {
    let ([ax, ay], [bx, by]) = (on_page(a), on_page(b));
    let _ = match circle(a, b) {
        Some((centre, radius)) => {
            let turn =
                (a[0] - centre[0]) * (b[1] - centre[1]) - (a[1] - centre[1]) * (b[0] - centre[0]);
            // The page's y axis points down: a turn to the left in the plane
            // is one to the right on the page.
            let sweep = u8::from(turn < 0.0);
            write!(
                path,
                "M{} {}A{r} {r} 0 0 {sweep} {} {}",
                Px(ax),
                Px(ay),
                Px(bx),
                Px(by),
                r = Px(radius * RADIUS)
            )
        }
        None => write!(path, "M{} {}L{} {}", Px(ax), Px(ay), Px(bx), Px(by)),
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn geodesics_meet_the_border_at_a_right_angle() {
        let (a, b) = ([0.5, 0.1], [-0.2, 0.6]);
        let (centre, radius) = circle(a, b).unwrap();
        for p in [a, b] {
            let distance = (p[0] - centre[0]).hypot(p[1] - centre[1]);
            assert!((distance - radius).abs() < 1e-12);
        }
        let squared = centre[0] * centre[0] + centre[1] * centre[1];
        assert!((squared - radius * radius - 1.0).abs() < 1e-9);
        assert!(circle([0.2, 0.2], [-0.4, -0.4]).is_none());
    }

    #[test]
    fn the_nearest_point_is_the_common_ancestor() {
        let ball = Ball::new(1.0).unwrap();
        for (a, b) in [
            ([0.5, 0.1], [-0.2, 0.6]),
            ([0.5, 0.1], [0.8, 0.2]),
            ([0.3, 0.0], [-0.3, 0.0]),
        ] {
            let point = nearest_to_origin(a, b);
            let depth = ball.distance(&[0.0, 0.0], &point);
            let expected = crate::geometry::ancestor_depth(&ball, &a, &b);
            assert!((depth - expected).abs() < 1e-6, "{depth} {expected}");
            // On the geodesic: distances add up.
            let through = ball.distance(&a, &point) + ball.distance(&point, &b);
            assert!((through - ball.distance(&a, &b)).abs() < 1e-6);
        }
    }

    #[test]
    fn depth_is_kept() {
        let ball = Ball::new(0.1f32).unwrap();
        let rows: Vec<f32> = (0..6)
            .flat_map(|i| ball.exp0(&[i as f32 * 0.3, 1.0 - i as f32 * 0.2, 0.5]))
            .collect();
        let points = Matrix::new(3, rows).unwrap();
        let classes = ["a".to_owned(), "b".to_owned()];
        let part = Points {
            points: &points,
            labels: &[0, 0, 0, 1, 1, 1],
            classes: &classes,
        };
        let disk = Disk::of(part, part, 0.1).unwrap();
        assert_eq!(disk.names[..4], ["a 1", "a 2", "a 3", "b 1"]);
        let unit = Ball::new(1.0).unwrap();
        let ball = Ball::new(0.1).unwrap();
        for (row, place) in points.iter().zip(&disk.proxies) {
            let true_depth = ball.distance(&[0.0; 3], &wide(row)) * 0.1f64.sqrt();
            let shown = unit.distance(&[0.0; 2], place);
            assert!((true_depth - shown).abs() < 1e-9);
        }
        assert!(Disk::of(part, part, 10.0).is_err());
    }
}
