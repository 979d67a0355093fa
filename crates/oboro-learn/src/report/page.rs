//! One page with everything, that needs no network and no script.

use super::chart;
use super::curves::Curves;
use super::disk::Disk;
use super::map::Map;
use super::markup::Markup;
use super::strips::Strip;
use super::table::Table;
use serde_json::{Value, json};
use std::fmt;

/// What a report shows; what is empty or missing is left out.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The title.
    pub title: String,
    /// What the page is about, in a sentence or two.
    pub summary: String,
    /// Settings, figures, comparisons.
    pub tables: Vec<Table>,
    /// What the training wrote down.
    pub curves: Option<Curves>,
    /// Euclidean embeddings in two dimensions.
    pub map: Option<Map>,
    /// Hyperbolic embeddings with their proxies.
    pub disk: Option<Disk>,
    /// Queries and their nearest neighbours.
    pub neighbours: Vec<Strip>,
    /// The queries that went worst.
    pub worst: Vec<Strip>,
}

/// Readable on paper, on white and on black, at any width.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #5c5c66; --paper: #ffffff; --line: #d4d4dc; --good: #1b7a34; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --soft: #a8a8b4; --paper: #17171a; --line: #3c3c46; --good: #6cc784; --bad: #ff8a80; } }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 46rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.2rem; }
p, figcaption, li, caption { color: var(--soft); }
nav ul { display: flex; flex-wrap: wrap; gap: 0 1rem; padding: 0; list-style: none; }
a { color: inherit; }
table { min-width: min(100%, 26rem); border-collapse: collapse; margin: 0.8rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 0.3rem; }
th, td { text-align: left; padding: 0.25rem 1rem 0.25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th.figure, td.figure { text-align: right; }
tbody th { font-weight: 500; }
.wide { overflow-x: auto; }
svg { max-width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--soft); }
@media (max-width: 34rem) { svg text { font-size: 15px; } }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .border { fill: none; stroke: var(--soft); stroke-width: 1.5; }
svg .branch { fill: none; stroke: var(--ink); stroke-width: 1.2; stroke-opacity: 0.7; }
svg .proxy { fill: var(--paper); stroke: var(--ink); stroke-width: 2; }
svg .name { fill: var(--ink); font-weight: 600; paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
ul.legend { display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; padding: 0; margin: 0.4rem 0; list-style: none; }
ul.legend svg { display: inline-block; vertical-align: -0.1em; }
figure { margin: 0; }
.strip { display: flex; flex-wrap: wrap; gap: 0.4rem 0.8rem; align-items: flex-start; padding: 0.6rem 0; border-bottom: 1px solid var(--line); break-inside: avoid; }
.found { display: flex; flex-wrap: wrap; gap: 0.4rem; flex: 1; }
.strip figure { width: 76px; }
.strip img, .strip .missing { display: block; width: 72px; height: 72px; object-fit: contain; image-rendering: pixelated; border: 2px solid var(--line); border-radius: 3px; background: #808080; font-size: 0.75rem; }
.strip figcaption { font-size: 0.75rem; line-height: 1.2; overflow-wrap: anywhere; }
.query img { border-color: var(--ink); }
.right img { border-color: var(--good); }
.right figcaption { color: var(--good); }
.wrong img { border-color: var(--bad); border-style: dashed; }
.wrong figcaption { color: var(--bad); }
.note { flex-basis: 100%; margin: 0; font-size: 0.85rem; }
@media print { :root { --ink: #000; --soft: #333; --paper: #fff; --line: #bbb; } nav { display: none; } h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
";

impl Page {
    /// The page, complete in one text.
    #[must_use]
    pub fn html(&self) -> String {
        let mut markup = Markup::new("<!DOCTYPE html>\n");
        markup.open(
            "html",
            &[("lang", &"en"), ("xmlns", &"http://www.w3.org/1999/xhtml")],
        );
        markup.open("head", &[]);
        markup.empty("meta", &[("charset", &"utf-8")]);
        markup.empty(
            "meta",
            &[
                ("name", &"viewport"),
                ("content", &"width=device-width, initial-scale=1"),
            ],
        );
        // Nothing is fetched, whatever the contents say.
        markup.empty(
            "meta",
            &[
                ("http-equiv", &"Content-Security-Policy"),
                (
                    "content",
                    &"default-src 'none'; img-src data:; style-src 'unsafe-inline'",
                ),
            ],
        );
        markup.element("title", &[], &self.title);
        markup.element("style", &[], STYLE);
        markup.close();
        markup.line();
        markup.open("body", &[]);
        markup.open("header", &[]);
        markup.element("h1", &[], &self.title);
        markup.element("p", &[], &self.summary);
        self.contents(&mut markup);
        markup.close();
        markup.open("main", &[]);
        for section in self.sections() {
            markup.line();
            markup.open(
                "section",
                &[("aria-labelledby", &format_args!("{}-heading", section.id()))],
            );
            markup.element(
                "h2",
                &[("id", &format_args!("{}-heading", section.id()))],
                section.heading(),
            );
            self.section(section, &mut markup);
            markup.close();
        }
        markup.finish()
    }

    /// Everything but pictures and drawings.
    #[must_use]
    pub fn json(&self) -> Value {
        let strips = |of: &[Strip]| of.iter().map(Strip::records).collect::<Vec<_>>();
        json!({
            "title": self.title,
            "summary": self.summary,
            "tables": self.tables,
            "curves": self.curves.as_ref().map(|curves| &curves.series),
            "tree": self.disk.as_ref().map(Disk::newick),
            "neighbours": strips(&self.neighbours),
            "worst": strips(&self.worst),
        })
    }

    fn sections(&self) -> Vec<Section> {
        let all = [
            (Section::Figures, !self.tables.is_empty()),
            (Section::Training, self.curves.is_some()),
            (Section::Map, self.map.is_some()),
            (Section::Disk, self.disk.is_some()),
            (Section::Neighbours, !self.neighbours.is_empty()),
            (Section::Worst, !self.worst.is_empty()),
        ];
        all.into_iter()
            .filter_map(|(section, there)| there.then_some(section))
            .collect()
    }

    fn contents(&self, markup: &mut Markup) {
        markup.open("nav", &[("aria-label", &"Contents")]);
        markup.open("ul", &[]);
        for section in self.sections() {
            markup.open("li", &[]);
            markup.element(
                "a",
                &[("href", &format_args!("#{}-heading", section.id()))],
                section.heading(),
            );
            markup.close();
        }
        markup.close();
        markup.close();
    }

    fn section(&self, section: Section, markup: &mut Markup) {
        match section {
            Section::Figures => {
                for table in &self.tables {
                    draw_table(table, markup);
                }
            }
            Section::Training => {
                if let Some(curves) = &self.curves {
                    draw_curves(curves, markup);
                }
            }
            Section::Map => {
                if let Some(map) = &self.map {
                    map.draw(markup);
                    markup.element("p", &[], map.words());
                }
            }
            Section::Disk => {
                if let Some(disk) = &self.disk {
                    disk.draw(markup);
                    markup.element("p", &[], disk.words());
                    markup.element("h3", &[], "Tree of the proxies");
                    disk.draw_dendrogram(markup);
                }
            }
            Section::Neighbours => {
                markup.element(
                    "p",
                    &[],
                    "The query first, then what is nearest to it among all others: ✓ of its class, ✗ of another one.",
                );
                for strip in &self.neighbours {
                    strip.draw(markup);
                }
            }
            Section::Worst => {
                markup.element(
                    "p",
                    &[],
                    "The queries with the lowest MAP@R, the worst first: what the embedding has not learned, or labels that are wrong.",
                );
                for strip in &self.worst {
                    strip.draw(markup);
                }
            }
        }
    }
}

/// As plain text: title and tables.
impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for table in &self.tables {
            write!(f, "\n{table}")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Section {
    Figures,
    Training,
    Map,
    Disk,
    Neighbours,
    Worst,
}

impl Section {
    const fn id(self) -> &'static str {
        match self {
            Self::Figures => "figures",
            Self::Training => "training",
            Self::Map => "embeddings",
            Self::Disk => "hyperbolic",
            Self::Neighbours => "neighbours",
            Self::Worst => "worst",
        }
    }

    const fn heading(self) -> &'static str {
        match self {
            Self::Figures => "Figures",
            Self::Training => "Training",
            Self::Map => "Map of the embeddings",
            Self::Disk => "Poincaré disk",
            Self::Neighbours => "Nearest neighbours",
            Self::Worst => "Worst queries",
        }
    }
}

fn draw_table(table: &Table, markup: &mut Markup) {
    markup.open(
        "div",
        &[
            ("class", &"wide"),
            ("tabindex", &0),
            ("role", &"group"),
            ("aria-label", &table.caption),
        ],
    );
    markup.open("table", &[]);
    markup.element("caption", &[], &table.caption);
    let class = |at: usize| {
        if table.is_of_figures(at) {
            "figure"
        } else {
            "words"
        }
    };
    markup.open("thead", &[]);
    markup.open("tr", &[]);
    for (at, heading) in table.columns.iter().enumerate() {
        markup.element("th", &[("scope", &"col"), ("class", &class(at))], heading);
    }
    markup.close();
    markup.close();
    markup.open("tbody", &[]);
    for row in &table.rows {
        markup.open("tr", &[]);
        for (at, cell) in row.iter().enumerate() {
            if at == 0 {
                markup.element("th", &[("scope", &"row")], cell);
            } else {
                markup.element("td", &[("class", &class(at))], cell);
            }
        }
        markup.close();
    }
    markup.close();
    markup.close();
    markup.close();
    markup.line();
}

/// Losses in one frame, shares from 0 to 1 in another, the rest in a frame
/// each.
fn draw_curves(curves: &Curves, markup: &mut Markup) {
    let mut losses: Vec<chart::Line<'_>> = Vec::new();
    let mut shares: Vec<chart::Line<'_>> = Vec::new();
    let mut rest: Vec<chart::Line<'_>> = Vec::new();
    for (name, points) in &curves.series {
        // The epoch says no more than the step does.
        let plain = name
            .rsplit_once('.')
            .map_or(name.as_str(), |(_, name)| name);
        if plain == "epoch" || !points.iter().any(|(_, value)| value.is_finite()) {
            continue;
        }
        let line = (name.as_str(), points.as_slice());
        if name.to_lowercase().contains("loss") {
            losses.push(line);
        } else if is_metric(name) {
            shares.push(line);
        } else if points.iter().any(|(_, value)| *value != points[0].1) {
            rest.push(line);
        }
    }
    let mut number = 0;
    let mut frame = |heading: &str, lines: &[chart::Line<'_>]| {
        if !lines.is_empty() {
            markup.element("h3", &[], heading);
            let names: Vec<String> = lines.iter().map(|(name, _)| title(name)).collect();
            let named: Vec<chart::Line<'_>> = names
                .iter()
                .zip(lines)
                .map(|(name, (_, points))| (name.as_str(), *points))
                .collect();
            chart::draw(markup, &format!("curve-{number}"), heading, &named);
            markup.line();
            number += 1;
        }
    };
    frame("Loss", &losses);
    frame("Retrieval while training", &shares);
    for line in rest {
        let name = title(line.0);
        frame(&name, &[line]);
    }
    if curves.skipped > 0 {
        markup.element(
            "p",
            &[],
            format_args!("{} lines of the record could not be read.", curves.skipped),
        );
    }
}

/// A series' name for people.
fn title(name: &str) -> String {
    if let Some((part, name)) = name.split_once('.') {
        return format!("{}, {part}", title(name));
    }
    match name {
        "rate" => "learning rate".to_owned(),
        "recall_at_1" => "R@1".to_owned(),
        "map_at_r" => "MAP@R".to_owned(),
        other => other.replace('_', " "),
    }
}

/// Whether a series is a retrieval metric.
fn is_metric(name: &str) -> bool {
    let lower = name.to_lowercase().replace(['-', '_'], "");
    [
        "recall",
        "r@",
        "ndcg",
        "map@",
        "mapatr",
        "rprecision",
        "nmi",
    ]
    .iter()
    .any(|metric| lower.contains(metric))
}
