//! The report's page, parsed by another library, on hostile names.
#![allow(clippy::unwrap_used)]

use oboro_learn::data::{Dataset, OnBad, folders};
use oboro_learn::evaluation::{Items, Options, Score, evaluate, nearest};
use oboro_learn::geometry::Ball;
use oboro_learn::report::{Curves, Disk, Map, Page, Points, Strip, Table, worst};
use oboro_vectors::Matrix;
use roxmltree::{Document, Node, ParsingOptions};
use std::path::Path;

/// Names that would break a page which does not escape them.
const CLASSES: [&str; 3] = [
    "a<b>&\"c'",
    "ja\u{0}\u{1b}\u{fffe}pan",
    "]]><script>alert(1)",
];

/// Three classes of four small pictures, one of them no picture.
fn images(root: &Path) -> Dataset {
    for (class, grey) in [(CLASSES[0], 40u8), ("y", 120), ("z", 200)] {
        std::fs::create_dir(root.join(class)).unwrap();
        for number in 0..4u8 {
            let pixels = vec![grey + number; 12 * 10];
            let image = image::GrayImage::from_raw(12, 10, pixels).unwrap();
            image
                .save(root.join(class).join(format!("{number}.png")))
                .unwrap();
        }
    }
    std::fs::write(root.join("z").join("3.png"), b"not a picture").unwrap();
    folders(root, OnBad::Fail).unwrap()
}

struct Embedded {
    rows: Matrix<f32>,
    points: Matrix<f32>,
    labels: Vec<u32>,
}

fn embedded() -> Embedded {
    let ball = Ball::new(0.1f32).unwrap();
    let (mut rows, mut points) = (Vec::new(), Vec::new());
    let labels: Vec<u32> = (0..12).map(|row| row / 4).collect();
    for row in 0..12u32 {
        let angle = f64::from(row / 4) * 2.1 + f64::from(row % 4) * 0.05;
        let (s, c) = angle.sin_cos();
        let wobble = f64::from(row % 5) * 0.1;
        rows.extend([c as f32, s as f32, wobble as f32, 0.2]);
        points.extend(ball.exp0(&[2.0 * c as f32, 2.0 * s as f32, wobble as f32]));
    }
    Embedded {
        rows: Matrix::new(4, rows).unwrap(),
        points: Matrix::new(3, points).unwrap(),
        labels,
    }
}

fn page(root: &Path) -> Page {
    let set = images(root);
    let Embedded {
        rows,
        points,
        labels,
    } = embedded();
    let names = CLASSES.map(str::to_owned);
    let items = Items::both(&rows, &points, &labels).unwrap();
    let scores = [Score::Cosine, Score::Hyperbolic { curvature: 0.1 }];
    let reports = scores.map(|score| evaluate(&items, None, &score, &Options::default()).unwrap());
    let lists = nearest(&items, None, &Score::Cosine, 5).unwrap();
    let metrics = root.join("metrics.jsonl");
    let lines: Vec<String> = (1..=40)
        .map(|step| {
            format!(
                "{{\"step\":{step},\"loss\":{},\"validation\":{{\"R@1\":{}}},\"rate\":{step}}}",
                10.0 / f64::from(step),
                1.0 - 1.0 / f64::from(step)
            )
        })
        .collect();
    std::fs::write(&metrics, lines.join("\n")).unwrap();
    let proxies = Matrix::new(3, points.data()[..9].to_vec()).unwrap();
    Page {
        title: "Garments & <others>".to_owned(),
        summary: "A test.".to_owned(),
        tables: vec![
            Table::of_evaluations("Held-out classes", &reports),
            Table::of_facts("Settings", &[("loss", "</td><script>".to_owned())]),
        ],
        curves: Some(Curves::read(&metrics).unwrap()),
        map: Some(Map::of(&rows, &labels, &names).unwrap()),
        disk: Some(
            Disk::of(
                Points {
                    points: &points,
                    labels: &labels,
                    classes: &names,
                },
                Points {
                    points: &proxies,
                    labels: &[0, 1, 2],
                    classes: &names,
                },
                0.1,
            )
            .unwrap(),
        ),
        neighbours: [0, 5, 11]
            .map(|query| Strip::of(&set, query, &set, &lists[query], ""))
            .to_vec(),
        worst: worst(&reports[0], 2)
            .into_iter()
            .map(|(query, value)| {
                Strip::of(
                    &set,
                    query,
                    &set,
                    &lists[query],
                    format!("MAP@R {value:.3}"),
                )
            })
            .collect(),
    }
}

fn parse(html: &str) -> Document<'_> {
    let options = ParsingOptions {
        allow_dtd: true,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(html, options).unwrap()
}

fn all<'a>(document: &'a Document<'_>, name: &str) -> Vec<Node<'a, 'a>> {
    document
        .descendants()
        .filter(|node| node.tag_name().name() == name)
        .collect()
}

#[test]
fn the_page_is_well_formed_and_complete() {
    let folder = tempfile::tempdir().unwrap();
    let html = page(folder.path()).html();
    let document = parse(&html);
    assert!(all(&document, "script").is_empty());
    assert_eq!(
        all(&document, "title")[0].text(),
        Some("Garments & <others>")
    );
    let headings: Vec<_> = all(&document, "h2").iter().filter_map(Node::text).collect();
    assert_eq!(
        headings,
        [
            "Figures",
            "Training",
            "Map of the embeddings",
            "Poincaré disk",
            "Nearest neighbours",
            "Worst queries"
        ]
    );
    // Three curves, map, disk, tree.
    let drawings: Vec<_> = all(&document, "svg")
        .into_iter()
        .filter(|svg| svg.attribute("role") == Some("img"))
        .collect();
    assert_eq!(drawings.len(), 6);
    for svg in drawings {
        let title = svg.first_element_child().unwrap();
        assert_eq!(title.tag_name().name(), "title");
        let names = svg.attribute("aria-labelledby").unwrap();
        assert!(names.contains(title.attribute("id").unwrap()));
    }
    assert!(html.contains(">a&lt;b&gt;&amp;&quot;c&#39;"));
}

#[test]
fn ids_are_unique_and_links_lead_somewhere() {
    let folder = tempfile::tempdir().unwrap();
    let html = page(folder.path()).html();
    let document = parse(&html);
    let mut ids: Vec<&str> = document
        .descendants()
        .filter_map(|node| node.attribute("id"))
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
    for link in all(&document, "a") {
        let target = link.attribute("href").unwrap();
        assert!(ids.contains(&target.strip_prefix('#').unwrap()), "{target}");
    }
}

#[test]
fn nothing_is_fetched_from_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let html = page(folder.path()).html();
    let document = parse(&html);
    for node in document.descendants() {
        for attribute in node.attributes() {
            let fetches = matches!(attribute.name(), "src" | "href" | "data" | "srcset");
            let inside = ["data:image/png;base64,", "#"];
            assert!(
                !fetches
                    || inside
                        .iter()
                        .any(|start| attribute.value().starts_with(start)),
                "{}",
                attribute.name()
            );
        }
    }
    assert!(!html.contains("url(") && !html.contains("@import"));
}

#[test]
fn pictures_have_words_and_what_cannot_be_read_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let html = page(folder.path()).html();
    let document = parse(&html);
    let pictures = all(&document, "img");
    // Five strips of six, one record of which is no picture.
    let missing = html.matches("no image").count();
    assert_eq!(pictures.len() + missing, 30);
    assert!(missing >= 1);
    assert!(
        pictures
            .iter()
            .all(|p| !p.attribute("alt").unwrap().is_empty())
    );
    // Right and wrong are said in words too, not by colour alone.
    let captions: Vec<_> = all(&document, "figcaption")
        .iter()
        .filter_map(Node::text)
        .collect();
    assert_eq!(captions.len(), 30);
    assert!(captions.iter().any(|c| c.starts_with('✓')));
    assert!(captions.iter().any(|c| c.starts_with('✗')));
}

#[test]
fn the_same_input_gives_the_same_page() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(page(a.path()).html(), page(b.path()).html());
}

#[test]
fn json_has_the_figures_without_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let json = page(folder.path()).json();
    assert_eq!(json["tables"][0]["rows"][0][0], "R@1");
    assert_eq!(json["curves"]["loss"].as_array().unwrap().len(), 40);
    assert_eq!(json["worst"].as_array().unwrap().len(), 2);
    assert!(json["tree"].as_str().unwrap().ends_with(");"));
    assert!(!json.to_string().contains("base64"));
}

#[test]
fn a_page_with_nothing_is_a_page() {
    let html = Page::default().html();
    assert!(all(&parse(&html), "section").is_empty());
}

#[test]
fn fail_labels_and_points_that_do_not_fit() {
    let Embedded {
        rows,
        points,
        labels,
    } = embedded();
    let names = CLASSES.map(str::to_owned);
    assert!(Map::of(&rows, &labels[1..], &names).is_err());
    assert!(Map::of(&rows, &labels, &names[..2]).is_err());
    let part = |points, labels| Points {
        points,
        labels,
        classes: &names,
    };
    let good = part(&points, &labels);
    assert!(Disk::of(good, good, 0.1).is_ok());
    // Outside a smaller ball, of another dimension, no ball at all.
    assert!(Disk::of(good, good, 1.0).is_err());
    assert!(Disk::of(good, part(&rows, &labels), 0.1).is_err());
    assert!(Disk::of(good, good, 0.0).is_err());
    assert!(Disk::of(good, part(&points, &labels[..3]), 0.1).is_err());
}
