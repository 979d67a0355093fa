//! Loads a data set, decodes every image, says what was refused, and gives
//! the retrieval figures of raw pixels: what any embedding has to beat.
//!
//! `cargo run --release -p oboro-learn --example dataset fashion-mnist FOLDER`
//!
//! Sets: folders, cub, cars, sop, in-shop, fashion-mnist, mnist, omniglot,
//! cifar.

use oboro_learn::data::{self, Dataset, ImageLimits, OnBad, Split, Testing};
use oboro_learn::evaluation::{Items, Options, Score, evaluate};
use oboro_vectors::Matrix;
use std::error::Error;
use std::path::Path;

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder] = arguments.as_slice() else {
        return Err("give the name of a set and its folder".into());
    };
    let folder = Path::new(folder);
    let on_bad = OnBad::Skip;
    let Split { train, testing } = match name.as_str() {
        "folders" => return show("all", data::folders(folder, on_bad)?).map(drop),
        "cub" => data::cub(folder, on_bad)?,
        "cars" => data::cars(folder, on_bad)?,
        "sop" => data::sop(folder, on_bad)?,
        "in-shop" => data::in_shop(folder, on_bad)?,
        "fashion-mnist" => data::idx(folder, &data::GARMENTS, on_bad)?,
        "mnist" => data::idx(folder, &DIGITS, on_bad)?,
        "omniglot" => data::omniglot(folder, on_bad)?,
        "cifar" => data::cifar_folders(folder, on_bad)?,
        other => return Err(format!("there is no set named {other}").into()),
    };
    show("train", train)?;
    let options = Options::default();
    match testing {
        Testing::Together(test) => {
            let test = show("test", test)?;
            if let Some((rows, labels)) = pixels(&test)? {
                let items = Items::euclidean(&rows, &labels)?;
                print!("{}", evaluate(&items, None, &Score::Cosine, &options)?);
            }
        }
        Testing::Apart { query, gallery } => {
            let (query, gallery) = (show("query", query)?, show("gallery", gallery)?);
            if let (Some((rows, labels)), Some((others, classes))) =
                (pixels(&query)?, pixels(&gallery)?)
            {
                let queries = Items::euclidean(&rows, &labels)?;
                let gallery = Items::euclidean(&others, &classes)?;
                print!(
                    "{}",
                    evaluate(&queries, Some(&gallery), &Score::Cosine, &options)?
                );
            }
        }
    }
    Ok(())
}

fn show(part: &str, set: Dataset) -> Result<Dataset, Box<dyn Error>> {
    let set = set.verify(&ImageLimits::default(), OnBad::Skip)?;
    println!(
        "{part}: {} images, {} classes; {}",
        set.len(),
        set.classes().len(),
        set.refused()
    );
    Ok(set)
}

/// Vectors and the class of each.
type Labelled = (Matrix<f32>, Vec<u32>);

/// Images as vectors, where all have one size.
fn pixels(set: &Dataset) -> Result<Option<Labelled>, Box<dyn Error>> {
    let limits = ImageLimits::default();
    let size = set.image(0, &limits)?.data.len();
    let mut values = Vec::with_capacity(set.len() * size);
    for index in 0..set.len() {
        let image = set.image(index, &limits)?;
        if image.data.len() != size {
            return Ok(None);
        }
        values.extend(image.data.iter().map(|&v| f32::from(v) / 255.0));
    }
    Ok(Some((Matrix::new(size, values)?, set.labels())))
}
