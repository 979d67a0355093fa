//! Labelled images: loaders, decoding, sampling, augmentation.
//!
//! | loader | layout | split |
//! |---|---|---|
//! | [`folders`] | one folder a class, nested as deep as you like | none |
//! | [`cub`] | CUB-200-2011: `images.txt`, `image_class_labels.txt`, `images/` | classes 1-100 train, 101-200 test |
//! | [`cars`] | Cars-196: `cars_annos.mat` (or `cars_annos.csv`), `car_ims/` | classes 1-98 train, 99-196 test |
//! | [`sop`] | Stanford Online Products: `Ebay_train.txt`, `Ebay_test.txt` | as listed |
//! | [`in_shop`] | In-Shop Clothes: `list_eval_partition.txt`, `img/` | train, query and gallery as listed |
//! | [`idx`] | MNIST, Fashion-MNIST: `*-ubyte`, with `.gz` or without | train and t10k |
//! | [`garments`] | 3,000 images of Fashion-MNIST that this crate brings along | none |
//! | [`omniglot`] | `images_background`, `images_evaluation` (or `_small1`, `_small2`) | background train, evaluation test |
//! | [`cifar_folders`] | `train/<class>/`, `test/<class>/` | as stored |
//!
//! A network takes images as its [`Input`] says; for training an
//! [`Augmentation`] changes them on the way.
//!
//! Bad records are refused one by one and counted ([`Refused`]), or fail the
//! whole set, as [`OnBad`] says. Loaders read lists and names; whether every
//! image decodes is for [`Dataset::verify`], which reads them all.

mod augment;
mod cifar;
mod dataset;
mod folders;
mod idx;
mod input;
mod listed;
mod mat;
mod pixels;
mod refused;
mod sampler;

pub use augment::{Augmentation, Crop};
pub use cifar::cifar;
pub use dataset::{Dataset, Record, Source, Split, Testing};
pub use folders::{cifar_folders, folders, omniglot, pictures};
pub use idx::{GARMENTS, garments, idx};
pub use input::Input;
pub use listed::{cars, cub, in_shop, sop};
pub use pixels::{ImageLimits, Pixels, decode};
pub use refused::{OnBad, Reason, Refused};
pub use sampler::ClassBalanced;

pub(crate) use sampler::below;
