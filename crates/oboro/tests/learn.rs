//! `oboro learn`: from images to private search, and bad input.
#![allow(clippy::unwrap_used)]

#[path = "learn/layouts.rs"]
mod layouts;
mod support;

use serde_json::Value;
use support::{Place, fails, json};

/// Classes of the garments that are tested on.
const HELD_OUT: &str = "dress,coat,shirt,sneaker,ankle boot";

/// A folder tree of `classes` classes with `items` pictures each.
fn pictures(place: &Place, name: &str, classes: u32, items: u32) -> String {
    for class in 0..classes {
        let folder = place.path(name).join(format!("class {class}"));
        std::fs::create_dir_all(&folder).unwrap();
        for item in 0..items {
            let image = image::RgbImage::from_fn(20, 18, |x, y| {
                let stripe = if class % 2 == 0 { x } else { y } / (class + 1) % 2;
                image::Rgb([
                    (stripe * 200) as u8,
                    (item * 20) as u8,
                    ((x * y) % 50) as u8,
                ])
            });
            image.save(folder.join(format!("{item}.png"))).unwrap();
        }
    }
    format!("folders:{}", place.at(name))
}

/// The fastest training there is, on pictures; `more` goes before what is usual.
fn quick<'a>(set: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["learn", "train", "--data", set, "--out", out];
    for usual in [
        ["--network", "tiny"],
        ["--dims", "8"],
        ["--epochs", "1"],
        ["--classes", "2"],
        ["--items", "2"],
    ] {
        if !more.contains(&usual[0]) {
            arguments.extend(usual);
        }
    }
    arguments.extend(more);
    arguments
}

fn metric(report: &Value, score: usize, name: &str) -> f64 {
    report["scores"][score]["metrics"][name].as_f64().unwrap()
}

#[test]
fn private_search_over_real_images_agrees_with_exact_search() {
    let place = Place::new();
    let out = place.at("demo");
    let shown = json(&[
        "learn",
        "demo",
        "--out",
        &out,
        "--epochs",
        "1",
        "--queries",
        "1000",
    ]);
    let private = shown["private"].as_array().unwrap();
    let metrics: Vec<_> = private
        .iter()
        .map(|p| p["metric"].as_str().unwrap())
        .collect();
    assert_eq!(metrics, ["cosine", "lorentz"]);
    for of in private {
        let (exact, private) = (
            of["exact_recall_at_1"].as_f64().unwrap(),
            of["private_recall_at_1"].as_f64().unwrap(),
        );
        // Among so many queries, the few whose two nearest are nearly equally far do not count.
        assert!((exact - private).abs() < 0.0101, "{of}");
        // Five classes: chance is a fifth.
        assert!(exact > 0.5, "{of}");
    }
    let page = std::fs::read_to_string(shown["report"].as_str().unwrap()).unwrap();
    assert!(page.contains("Poincaré disk") && page.contains("data:image/png;base64,"));
    // It leaves what its page was made of, which can be made again.
    let (embeddings, run) = (format!("{out}/embeddings"), format!("{out}/run"));
    let again = place.at("again.html");
    json(&[
        "learn",
        "report",
        &embeddings,
        "--run",
        &run,
        "--out",
        &again,
    ]);
    assert!(
        std::fs::read_to_string(&again)
            .unwrap()
            .contains("Tree of the proxies")
    );
    // And it replaces nothing.
    let message = fails(4, &["learn", "demo", "--out", &out]);
    assert!(message.contains("exists"), "{message}");
}

#[test]
fn each_verb_takes_what_the_one_before_it_made() {
    let place = Place::with_keys();
    let (run, set) = (place.at("run"), "garments");
    let trained = json(&[
        "learn",
        "train",
        "--data",
        set,
        "--hold-out",
        HELD_OUT,
        "--loss",
        "chest",
        "--network",
        "tiny",
        "--dims",
        "16",
        "--hyperbolic-dims",
        "15",
        "--epochs",
        "1",
        "--classes",
        "5",
        "--items",
        "20",
        "--out",
        &run,
    ]);
    assert_eq!(
        (&trained["images"], &trained["classes"]),
        (&1500.into(), &5.into())
    );
    assert_eq!(trained["end"], "finished");
    let steps = trained["steps"].as_u64().unwrap();
    assert_eq!(steps, 15);

    let resumed = json(&["learn", "train", "--resume", &run, "--epochs", "2"]);
    assert_eq!(resumed["steps"].as_u64().unwrap(), 2 * steps);

    let out = place.at("embeddings");
    let made = json(&["learn", "embed", &run, "--out", &out]);
    assert_eq!(made["items"], 1500);
    assert_eq!(made["hyperbolic_dims"], 15);
    // Which image a row is of.
    let images = std::fs::read_to_string(place.path("embeddings/images.txt")).unwrap();
    assert_eq!(images.lines().count(), 1500);
    let message = fails(4, &["learn", "embed", &run, "--out", &out]);
    assert!(message.contains("exists"), "{message}");
    let figures = json(&["learn", "eval", &out, "--nmi", "1"]);
    assert_eq!(figures["scores"][0]["score"], "cosine");
    assert_eq!(figures["scores"][1]["score"], "hyperbolic");
    assert_eq!(figures["scores"][2]["score"], "fused");
    for score in 0..3 {
        assert!(metric(&figures, score, "R@1") > 0.5);
        assert!(metric(&figures, score, "nDCG@1") == metric(&figures, score, "R@1"));
    }
    assert!(metric(&figures, 0, "NMI") > 0.0);

    // The other format says the same.
    let npy = place.at("npy");
    json(&[
        "learn",
        "embed",
        &run,
        "--out",
        &npy,
        "--format",
        "npy",
        "--threads",
        "1",
    ]);
    let same = json(&["learn", "eval", &npy, "--nmi", "1"]);
    assert_eq!(figures["scores"], same["scores"]);

    for (metric, file, dimension) in [
        ("cosine", "euclidean.fvecs", 16),
        ("lorentz", "lorentz.fvecs", 16),
    ] {
        let built = place.build(metric, &format!("{out}/{file}"), &["--metric", metric]);
        assert_eq!(built["vectors"], 1500);
        assert_eq!(built["dimension"], dimension);
    }

    let page = place.at("page.html");
    let report = json(&[
        "learn",
        "report",
        &out,
        "--run",
        &run,
        "--out",
        &page,
        "--title",
        "A <title> & more",
    ]);
    assert!(
        report["report"]["tree"]
            .as_str()
            .unwrap()
            .contains("'sandal 1'")
    );
    let page_text = std::fs::read_to_string(&page).unwrap();
    assert!(page_text.contains("A &lt;title&gt; &amp; more"));
    let message = fails(4, &["learn", "report", &out, "--out", &page]);
    assert!(message.contains("--force"), "{message}");
}

#[test]
fn the_same_seed_and_a_recipe_give_the_same_vectors() {
    let place = Place::new();
    let set = pictures(&place, "set", 6, 6);
    let (first, second) = (place.at("first"), place.at("second"));
    json(&quick(
        &set,
        &first,
        &[
            "--hold-out",
            "last:2",
            "--loss",
            "mpa-class-data",
            "--seed",
            "3",
        ],
    ));
    let recipe = format!("{first}/recipe.toml");
    json(&["learn", "train", "--recipe", &recipe, "--out", &second]);
    let vectors = |run: &str, out: &str| {
        let out = place.at(out);
        json(&["learn", "embed", run, "--out", &out]);
        std::fs::read(format!("{out}/euclidean.fvecs")).unwrap()
    };
    assert_eq!(vectors(&first, "a"), vectors(&second, "b"));
}

#[test]
fn the_best_checkpoint_is_chosen_on_images_set_aside() {
    let place = Place::new();
    let set = pictures(&place, "set", 8, 6);
    let run = place.at("run");
    let trained = json(&quick(
        &set,
        &run,
        &[
            "--hold-out",
            "last:2",
            "--validate",
            "last:2",
            "--epochs",
            "3",
        ],
    ));
    assert_eq!(
        (&trained["images"], &trained["classes"]),
        (&24.into(), &4.into())
    );
    assert_eq!(
        (&trained["watched"], &trained["watched_images"]),
        (&"validation".into(), &12.into())
    );
    let best = trained["best_step"].as_u64().unwrap();
    assert!(trained["best_recall_at_1"].as_f64() >= trained["recall_at_1"].as_f64());
    // Its record says whose figures they are, and the recipe what was set aside.
    let record = std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    assert!(record.contains(r#""part":"validation""#) && !record.contains(r#""part":"test""#));
    let recipe = std::fs::read_to_string(place.path("run/recipe.toml")).unwrap();
    assert!(recipe.contains("validate = ["), "{recipe}");

    let of = |checkpoint: &str, part: &str| {
        let out = place.at(&format!("{checkpoint} {part}"));
        let made = json(&[
            "learn",
            "embed",
            &run,
            "--out",
            &out,
            "--checkpoint",
            checkpoint,
            "--part",
            part,
        ]);
        (made, json(&["learn", "eval", &out]))
    };
    let (made, figures) = of("best", "validation");
    assert_eq!((&made["items"], &made["step"]), (&12.into(), &best.into()));
    assert_eq!(figures["part"], "validation");
    let found = metric(&figures, 0, "R@1");
    assert!((found - trained["best_recall_at_1"].as_f64().unwrap()).abs() < 1e-4);
    let (_, figures) = of("best", "test");
    assert_eq!(
        (&figures["part"], &figures["checkpoint"]),
        (&"test".into(), &"best".into())
    );
    // Two classes of the test part, and the tables say how the checkpoint was chosen.
    assert_eq!(figures["scores"][0]["classes"], 2);
    let page = place.at("page.html");
    let report = json(&[
        "learn",
        "report",
        &place.at("best test"),
        "--run",
        &run,
        "--out",
        &page,
    ]);
    let tables = report["report"]["tables"].to_string();
    assert!(tables.contains("chosen on the validation part"), "{tables}");
    assert!(tables.contains("last:2 of the training part"), "{tables}");
    assert!(report["report"]["curves"]["validation.recall_at_1"].is_array());

    // A step's images of every class, and patience.
    let other = place.at("other");
    let trained = json(&quick(
        &set,
        &other,
        &[
            "--hold-out",
            "last:2",
            "--validate",
            "images:2",
            "--epochs",
            "30",
            "--rate",
            "1e-12",
            "--patience",
            "2",
        ],
    ));
    assert_eq!(trained["end"], "no longer better");
    assert_eq!(
        (&trained["images"], &trained["watched_images"]),
        (&24.into(), &12.into())
    );
}

#[test]
fn fail_choosing_on_the_test_part() {
    let place = Place::new();
    let set = pictures(&place, "set", 5, 4);
    let run = place.at("run");
    let patient = ["--hold-out", "last:2", "--patience", "2"];
    let message = fails(2, &quick(&set, &run, &patient));
    assert!(message.contains("--validate"), "{message}");
    let recipe = format!("[data]\nset = \"{set}\"\n[training]\npatience = 2\n");
    std::fs::write(place.path("recipe.toml"), recipe).unwrap();
    let recipe = place.at("recipe.toml");
    let message = fails(2, &["learn", "train", "--recipe", &recipe, "--out", &run]);
    assert!(message.contains("--validate"), "{message}");
    for (aside, expected) in [
        ("images:1", "two or more"),
        ("images:3", "two or more"),
        ("images:few", "images:5"),
        ("hat", "\"hat\""),
        ("last:3", "both sides"),
    ] {
        let message = fails(
            2,
            &quick(&set, &run, &["--hold-out", "last:2", "--validate", aside]),
        );
        assert!(message.contains(expected), "{message}");
    }
    assert!(!place.path("run").exists());

    let trained = json(&quick(&set, &run, &["--hold-out", "last:2"]));
    assert_eq!(
        (&trained["watched"], &trained["best_step"]),
        (&"test".into(), &Value::Null)
    );
    let out = place.at("out");
    for (option, value) in [("--checkpoint", "best"), ("--part", "validation")] {
        let message = fails(2, &["learn", "embed", &run, "--out", &out, option, value]);
        assert!(message.contains("--validate"), "{message}");
    }
    let message = fails(2, &["learn", "train", "--resume", &run, "--patience", "3"]);
    assert!(message.contains("--validate"), "{message}");

    // A run that is to look at nothing does not when it goes on.
    let blind = place.at("blind");
    json(&quick(
        &set,
        &blind,
        &["--hold-out", "last:2", "--no-validation"],
    ));
    let trained = json(&["learn", "train", "--resume", &blind, "--epochs", "2"]);
    assert_eq!(trained["watched"], Value::Null);
    let record = std::fs::read_to_string(place.path("blind/metrics.jsonl")).unwrap();
    assert!(!record.contains("recall"), "{record}");
    let both = [
        "--hold-out",
        "last:1",
        "--validate",
        "last:1",
        "--no-validation",
    ];
    let message = fails(2, &quick(&set, &place.at("both"), &both));
    assert!(message.contains("--no-validation"), "{message}");
}

#[test]
fn bad_pictures_are_left_out_or_fail_the_set() {
    let place = Place::new();
    let set = pictures(&place, "set", 3, 4);
    std::fs::write(place.path("set/class 1/broken.png"), b"not a picture").unwrap();
    let alone = place.path("set/lonely");
    std::fs::create_dir(&alone).unwrap();
    std::fs::copy(place.path("set/class 0/0.png"), alone.join("0.png")).unwrap();

    let run = place.at("run");
    let trained = json(&quick(&set, &run, &[]));
    // The class with one picture is none any more: no proxy stands for it.
    assert_eq!(
        (&trained["images"], &trained["classes"]),
        (&12.into(), &3.into())
    );
    // As many classes in a batch as there are, where nothing is said.
    let usual = place.at("usual");
    json(&[
        "learn",
        "train",
        "--data",
        &set,
        "--out",
        &usual,
        "--network",
        "tiny",
        "--dims",
        "8",
        "--epochs",
        "1",
        "--items",
        "2",
    ]);
    let many = place.at("many");
    let message = fails(2, &quick(&set, &many, &["--classes", "4"]));
    assert!(
        message.contains("4 classes") && message.contains("has 3"),
        "{message}"
    );
    assert!(!place.path("many").exists());

    let strict = place.at("strict");
    let message = fails(3, &quick(&set, &strict, &["--strict"]));
    assert!(message.contains("1 unreadable image"), "{message}");
    std::fs::remove_file(place.path("set/class 1/broken.png")).unwrap();
    let message = fails(3, &quick(&set, &strict, &["--strict"]));
    assert!(message.contains("alone in their class"), "{message}");
    assert!(!place.path("strict").exists());
}

/// The same tree in grey.
fn grey(place: &Place, from: &str, name: &str) -> String {
    for class in std::fs::read_dir(place.path(from)).unwrap() {
        let class = class.unwrap();
        let folder = place.path(name).join(class.file_name());
        std::fs::create_dir_all(&folder).unwrap();
        for file in std::fs::read_dir(class.path()).unwrap() {
            let file = file.unwrap();
            let image = image::open(file.path()).unwrap().into_luma8();
            image.save(folder.join(file.file_name())).unwrap();
        }
    }
    format!("folders:{}", place.at(name))
}

#[test]
fn a_run_begins_with_the_network_of_another() {
    let place = Place::new();
    let colour = pictures(&place, "colour", 3, 4);
    let grey = grey(&place, "colour", "grey");
    let channels = |run: &str| {
        let recipe = std::fs::read_to_string(place.path(run).join("recipe.toml")).unwrap();
        let line = recipe
            .lines()
            .find(|line| line.starts_with("channels = ") && line.len() < 13);
        line.unwrap()["channels = ".len()..].to_owned()
    };
    for (set, wanted) in [(&grey, "1"), (&colour, "3")] {
        let (first, second) = (format!("first {wanted}"), format!("second {wanted}"));
        let trained = json(&quick(set, &place.at(&first), &[]));
        assert_eq!(channels(&first), wanted);
        let weights = format!(
            "{}/network.safetensors",
            trained["checkpoint"].as_str().unwrap()
        );
        json(&quick(set, &place.at(&second), &["--weights", &weights]));
        assert_eq!(channels(&second), wanted);
        // Images of the other kind are made into those that it was trained on.
        let other = if wanted == "1" { &colour } else { &grey };
        let third = format!("third {wanted}");
        json(&quick(other, &place.at(&third), &["--weights", &weights]));
        assert_eq!(channels(&third), wanted);
        let side = format!("side {wanted}");
        let more = ["--weights", &weights, "--side", "24"];
        json(&quick(set, &place.at(&side), &more));
        let message = fails(
            3,
            &quick(
                set,
                &place.at("none"),
                &["--weights", &weights, "--network", "small"],
            ),
        );
        assert!(message.contains("choose the architecture"), "{message}");
    }
}

#[test]
fn a_picture_without_a_class_is_embedded_as_a_query() {
    let place = Place::new();
    let set = pictures(&place, "set", 4, 4);
    let run = place.at("run");
    json(&quick(&set, &run, &["--hold-out", "last:2"]));
    let all = place.at("all");
    json(&["learn", "embed", &run, "--out", &all]);
    let rows = |folder: &str| oboro_vectors::read_f32(format!("{folder}/euclidean.fvecs")).unwrap();
    let images = std::fs::read_to_string(place.path("all/images.txt")).unwrap();
    let names: Vec<&str> = images.lines().collect();
    assert_eq!((names.len(), names[5]), (8, "class 3/1.png"));
    // The same picture by itself has the same vector.
    let (photo, one) = (
        format!("pictures:{}", place.at("set/class 3/1.png")),
        place.at("one"),
    );
    let made = json(&["learn", "embed", &run, "--data", &photo, "--out", &one]);
    assert_eq!(made["items"], 1);
    for (a, b) in rows(&one).row(0).iter().zip(rows(&all).row(5)) {
        assert!((a - b).abs() < 1e-5);
    }
    let (folder, many) = (format!("pictures:{}", place.at("set")), place.at("many"));
    let made = json(&["learn", "embed", &run, "--data", &folder, "--out", &many]);
    assert_eq!(made["items"], 16);
    let message = fails(2, &quick(&folder, &place.at("none"), &[]));
    assert!(message.contains("no classes"), "{message}");
}

#[test]
fn fail_command_lines_and_recipes_that_are_wrong() {
    let place = Place::new();
    let set = pictures(&place, "set", 3, 4);
    let out = place.at("run");
    let cases: [(i32, &str, Vec<&str>); 9] = [
        (2, "no data set", quick("imagenet:x", &out, &[])),
        (2, "needs its folder", quick("omniglot", &out, &[])),
        (2, "has no folder", quick("garments:x", &out, &[])),
        (
            3,
            "no/such/folder",
            quick("folders:no/such/folder", &out, &[]),
        ),
        (2, "\"hat\"", quick(&set, &out, &["--hold-out", "hat"])),
        (
            2,
            "3 are held out",
            quick(&set, &out, &["--hold-out", "last:9"]),
        ),
        (2, "\"triplet\"", quick(&set, &out, &["--loss", "triplet"])),
        (
            2,
            "\"none-such\"",
            quick(&set, &out, &["--augment", "none-such"]),
        ),
        (
            3,
            "no/weights.pth",
            quick(&set, &out, &["--weights", "no/weights.pth"]),
        ),
    ];
    for (code, expected, arguments) in cases {
        let message = fails(code, &arguments);
        assert!(message.contains(expected), "{message}");
        assert!(!place.path("run").exists(), "{message}");
    }

    let recipe = |text: &str| {
        std::fs::write(place.path("recipe.toml"), text).unwrap();
        let recipe = place.at("recipe.toml");
        fails(2, &["learn", "train", "--recipe", &recipe, "--out", &out])
    };
    let data = format!("[data]\nset = \"{set}\"\n");
    for (text, expected) in [
        (format!("{data}colour = 1\n"), "colour"),
        (format!("losses = \"chest\"\n{data}"), "losses"),
        (format!("{data}[training]\nepochz = 3\n"), "epochz"),
        (
            format!("{data}[training]\nepochs = 0\nclasses = 2\n"),
            "epochs",
        ),
        (format!("loss = \"x\"\n{data}"), "\"x\""),
        (
            format!("{data}[loss]\nloss = \"chest\"\nmargin = 1\n"),
            "margin",
        ),
        ("[data".to_owned(), "recipe.toml"),
        (String::new(), "[data]"),
    ] {
        let message = recipe(&text);
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn fail_devices_that_are_not_there() {
    let place = Place::new();
    let set = pictures(&place, "set", 3, 4);
    let out = place.at("run");
    // With a GPU there is the device gpu, but nowhere one with this number.
    for device in ["tpu", "gpu:", "gpu:4000"] {
        let message = fails(2, &quick(&set, &out, &["--device", device]));
        assert!(!message.contains("panicked"), "{message}");
        assert!(
            message.contains("GPU") || message.contains("gpu:N"),
            "{message}"
        );
        assert!(!place.path("run").exists(), "{message}");
    }
    let recipe = format!("device = \"gpu:4000\"\n[data]\nset = \"{set}\"\n");
    std::fs::write(place.path("recipe.toml"), recipe).unwrap();
    let recipe = place.at("recipe.toml");
    let message = fails(2, &["learn", "train", "--recipe", &recipe, "--out", &out]);
    assert!(message.contains("GPU"), "{message}");

    // A run does not depend on where it began.
    json(&quick(&set, &out, &["--device", "cpu"]));
    fails(
        2,
        &[
            "learn", "train", "--resume", &out, "--epochs", "2", "--device", "gpu:4000",
        ],
    );
    fails(
        2,
        &[
            "learn",
            "embed",
            &out,
            "--device",
            "gpu:4000",
            "--out",
            &place.at("e"),
        ],
    );
    let kept = std::fs::read_to_string(place.path("run").join("recipe.toml")).unwrap();
    assert!(kept.starts_with("device = \"cpu\"\n"), "{kept}");
}

#[test]
fn fail_folders_that_are_something_else() {
    let place = Place::new();
    let set = pictures(&place, "set", 3, 4);
    let (run, out, page) = (
        place.at("run"),
        place.at("embeddings"),
        place.at("page.html"),
    );
    std::fs::create_dir(place.path("empty")).unwrap();
    let empty = place.at("empty");
    fails(3, &["learn", "embed", &empty, "--out", &out]);
    fails(3, &["learn", "eval", &empty]);
    fails(3, &["learn", "train", "--resume", &empty]);

    json(&quick(&set, &run, &["--loss", "proxy-anchor"]));
    // Nothing was held out, so there is nothing to test on.
    let message = fails(2, &["learn", "embed", &run, "--out", &out]);
    assert!(message.contains("--hold-out"), "{message}");
    json(&["learn", "embed", &run, "--out", &out, "--part", "train"]);
    let message = fails(2, &["learn", "eval", &out, "--score", "hyperbolic"]);
    assert!(message.contains("hyperbolic"), "{message}");
    fails(2, &["learn", "eval", &out, "--score", "hamming"]);
    // A run is not started twice in one folder.
    let message = fails(2, &quick(&set, &run, &[]));
    assert!(message.contains("resume"), "{message}");

    // Labels that do not fit, and images that are not those any more.
    let about = place.path("embeddings/embeddings.json");
    let text = std::fs::read_to_string(&about).unwrap();
    std::fs::write(&about, text.replace("\"items\": 12", "\"items\": 13")).unwrap();
    fails(3, &["learn", "eval", &out]);
    std::fs::write(&about, text.replace("version", "wersion")).unwrap();
    fails(3, &["learn", "eval", &out]);
    std::fs::write(&about, &text).unwrap();
    std::fs::remove_file(place.path("set/class 0/0.png")).unwrap();
    let message = fails(3, &["learn", "report", &out, "--out", &page]);
    assert!(message.contains("other images"), "{message}");
    assert!(!place.path("page.html").exists());
}
