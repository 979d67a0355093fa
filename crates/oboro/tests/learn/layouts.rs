//! Every data set's layout, on a small tree of its shape: trained on, embedded,
//! evaluated.

use std::path::Path;

use serde_json::Value;

use crate::support::{Place, json};
use crate::{metric, quick};

/// Pictures of one class are alike.
fn picture(path: &Path, class: u8, item: u8) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = image::RgbImage::from_fn(20, 18, |x, y| {
        let stripe = if class.is_multiple_of(2) { x } else { y } * u32::from(class + 1) / 2 % 2;
        image::Rgb([(stripe * 200) as u8, item * 20, ((x * y) % 50) as u8])
    });
    image.save(path).unwrap();
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Trains a step or two on a set and returns where.
fn trained(place: &Place, set: &str, more: &[&str], images: usize, classes: usize) -> String {
    let run = place.at("run");
    let made = json(&quick(set, &run, more));
    assert_eq!(
        (&made["images"], &made["classes"]),
        (&images.into(), &classes.into()),
        "{made}"
    );
    let steps = made["steps"].as_u64().unwrap();
    assert!((1..=4).contains(&steps), "{steps}");
    run
}

fn embedded(place: &Place, run: &str, part: &str, items: usize) -> String {
    let out = place.at(part);
    let made = json(&["learn", "embed", run, "--out", &out, "--part", part]);
    assert_eq!(made["items"], items, "{made}");
    assert!(made["images_per_second"].as_f64().unwrap() > 0.0);
    out
}

fn checked(figures: &Value, queries: usize, gallery: usize) {
    let score = &figures["scores"][0];
    assert_eq!(
        (&score["queries"], &score["gallery"]),
        (&queries.into(), &gallery.into()),
        "{figures}"
    );
    assert!((0.0..=1.0).contains(&metric(figures, 0, "R@1")));
    assert_eq!(
        figures["part"],
        if queries == gallery { "test" } else { "query" }
    );
}

/// The whole way over a set with one test part of `test` images.
fn whole(place: &Place, set: &str, more: &[&str], (images, classes, test): (usize, usize, usize)) {
    let run = trained(place, set, more, images, classes);
    let out = embedded(place, &run, "test", test);
    checked(&json(&["learn", "eval", &out]), test, test);
}

#[test]
fn a_folder_a_class() {
    let place = Place::new();
    for class in 0..4 {
        for item in 0..3 {
            let name = format!("set/group {}/kind {class}/{item}.png", class % 2);
            picture(&place.path(&name), class, item);
        }
    }
    let set = format!("folders:{}", place.at("set"));
    whole(&place, &set, &["--hold-out", "last:2"], (6, 2, 6));
}

#[test]
fn cub_200_2011() {
    let place = Place::new();
    let at = |name: &str| place.path("set").join(name);
    let names: String = (1..=200)
        .map(|n| format!("{n} {n:03}.Bird_{n}\n"))
        .collect();
    write(&at("classes.txt"), names);
    let (mut images, mut labels, mut number) = (String::new(), String::new(), 0);
    for class in [1, 2, 50, 101, 200] {
        for item in 0..2 {
            number += 1;
            let name = format!("{class:03}.Bird_{class}/Bird_{item}.jpg");
            picture(&at("images").join(&name), class, item);
            images += &format!("{number} {name}\n");
            labels += &format!("{number} {class}\n");
        }
    }
    write(&at("images.txt"), images);
    write(&at("image_class_labels.txt"), labels);
    // A hundred classes have names, three have images.
    let set = format!("cub:{}", place.at("set"));
    whole(&place, &set, &[], (6, 3, 4));
}

#[test]
fn cars_196() {
    let place = Place::new();
    let at = |name: &str| place.path("set").join(name);
    let mut list = "path,class\n".to_owned();
    for class in [1, 98, 99, 196] {
        for item in 0..2 {
            let name = format!("car_ims/{class:03}{item:03}.jpg");
            picture(&at(&name), class, item);
            list += &format!("{name},{class}\n");
        }
    }
    write(&at("cars_annos.csv"), list);
    let set = format!("cars:{}", place.at("set"));
    whole(&place, &set, &[], (4, 2, 4));
}

#[test]
fn stanford_online_products() {
    let place = Place::new();
    let at = |name: &str| place.path("set").join(name);
    for (list, classes) in [("Ebay_train.txt", [1, 2]), ("Ebay_test.txt", [3, 4])] {
        let mut text = "image_id class_id super_class_id path\n".to_owned();
        for class in classes {
            for item in 0..3 {
                let name = format!("chair_final/{class}_{item}.JPG");
                picture(&at(&name), class, item);
                text += &format!("{class}{item} {class} 1 {name}\n");
            }
        }
        write(&at(list), text);
    }
    let set = format!("sop:{}", place.at("set"));
    whole(&place, &set, &[], (6, 2, 6));
}

#[test]
fn in_shop_with_query_and_gallery() {
    let place = Place::new();
    let at = |name: &str| place.path("set").join(name);
    let mut rows = String::new();
    let mut count = 0;
    for class in 1..=6 {
        for item in 0..3 {
            let name = format!("img/WOMEN/Dresses/id_{class:08}/0{item}_1_front.jpg");
            picture(&at(&name), class, item);
            let part = match (class, item) {
                (1..=3, _) => "train",
                (_, 0) => "query",
                _ => "gallery",
            };
            rows += &format!("{name} id_{class:08} {part}\n");
            count += 1;
        }
    }
    let list = format!("{count}\nimage_name item_id evaluation_status\n{rows}");
    write(&at("Eval/list_eval_partition.txt"), list);
    let set = format!("in-shop:{}", place.at("set"));
    // Some of what is trained on can be set aside here, too.
    let run = trained(&place, &set, &["--validate", "last:1"], 6, 2);
    embedded(&place, &run, "validation", 3);
    let (query, gallery) = (
        embedded(&place, &run, "query", 3),
        embedded(&place, &run, "gallery", 6),
    );
    checked(
        &json(&["learn", "eval", &query, "--gallery", &gallery]),
        3,
        6,
    );
    let page = place.at("page.html");
    json(&[
        "learn",
        "report",
        &query,
        "--gallery",
        &gallery,
        "--run",
        &run,
        "--out",
        &page,
    ]);
    let message = crate::support::fails(
        2,
        &[
            "learn",
            "embed",
            &run,
            "--out",
            &place.at("test"),
            "--part",
            "test",
        ],
    );
    assert!(message.contains("query and gallery"), "{message}");
}

#[test]
fn omniglot() {
    let place = Place::new();
    for (folder, alphabet, class) in [
        ("images_background", "Greek", 0),
        ("images_background", "Latin", 1),
        ("images_evaluation", "Keble", 2),
        ("images_evaluation", "Tengwar", 3),
    ] {
        for item in 0..3 {
            let name = format!("set/{folder}/{alphabet}/character01/{item}.png");
            picture(&place.path(&name), class, item);
        }
    }
    let set = format!("omniglot:{}", place.at("set"));
    whole(&place, &set, &["--augment", "characters"], (6, 2, 6));
}

#[test]
fn cifar() {
    let place = Place::new();
    for part in ["train", "test"] {
        for (class, name) in ["airplane", "bird", "cat", "deer"].iter().enumerate() {
            for item in 0..3 {
                let path = place.path(&format!("set/{part}/{name}/000{item}.jpg"));
                picture(&path, class as u8, item);
            }
        }
    }
    let set = format!("cifar:{}", place.at("set"));
    whole(&place, &set, &["--hold-out", "last:2"], (6, 2, 6));
}

#[test]
fn mnist_and_fashion_mnist() {
    for (name, hold_out) in [("mnist", "8,9"), ("fashion-mnist", "bag,ankle boot")] {
        let place = Place::new();
        for part in ["train", "t10k"] {
            let (mut images, mut labels) = (
                vec![0, 0, 8, 3, 0, 0, 0, 20, 0, 0, 0, 28, 0, 0, 0, 28],
                vec![0, 0, 8, 1, 0, 0, 0, 20],
            );
            for item in 0..20u8 {
                labels.push(item % 10);
                images
                    .extend((0..28 * 28).map(|at| (at % (2 + usize::from(item % 10)) * 25) as u8));
            }
            let file = |of: &str| place.path("set").join(format!("{part}-{of}-ubyte"));
            write(&file("images-idx3"), images);
            write(&file("labels-idx1"), labels);
        }
        let set = format!("{name}:{}", place.at("set"));
        whole(&place, &set, &["--hold-out", hold_out], (16, 8, 4));
    }
}
