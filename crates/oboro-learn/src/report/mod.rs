//! Reports of trainings and evaluations: a table as text, JSON, and one HTML
//! page that holds everything it shows.
//!
//! The page needs no network and no script, can be printed and read aloud, and
//! follows the reader's choice of light or dark. Every text and attribute is
//! escaped where it is written, so names of classes and files may hold
//! anything.
//!
//! ```
//! use oboro_learn::report::{Page, Table};
//! let page = Page {
//!     title: "Garments".to_owned(),
//!     tables: vec![Table::of_facts("Settings", &[("loss", "proxy anchor".to_owned())])],
//!     ..Page::default()
//! };
//! assert!(page.html().starts_with("<!DOCTYPE html>"));
//! println!("{page}");
//! ```

mod chart;
mod curves;
mod disk;
mod drawing;
mod map;
mod marks;
mod markup;
mod page;
mod plane;
mod proxies;
mod strips;
mod table;
mod tree;

pub use curves::Curves;
pub use disk::{Disk, Points};
pub use map::Map;
pub use page::Page;
pub use proxies::Proxies;
pub use strips::{Strip, worst};
pub use table::{Table, metrics};
