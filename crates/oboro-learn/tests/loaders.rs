//! The loaders on small trees of the published sets' shapes.
#![allow(clippy::unwrap_used)]

use flate2::Compression;
use flate2::write::GzEncoder;
use oboro_learn::LearnError;
use oboro_learn::data::{
    Dataset, ImageLimits, OnBad, Pixels, Reason, Split, Testing, cars, cifar, cub, decode, folders,
    idx, in_shop, omniglot, pictures, sop,
};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

fn write(path: PathBuf, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A picture of one colour, told apart by it.
fn picture(path: PathBuf, shade: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = image::RgbImage::from_pixel(8, 6, image::Rgb([shade, shade / 2, 7]));
    image.save(path).unwrap();
}

fn together(split: &Split) -> &Dataset {
    match &split.testing {
        Testing::Together(test) => test,
        Testing::Apart { .. } => panic!("apart"),
    }
}

fn refused_by(result: Result<Split, LearnError>) -> String {
    match result {
        Err(error @ LearnError::Refused { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn folders_are_classes_in_order() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    picture(at("b/2.png"), 20);
    picture(at("b/1.PNG"), 10);
    picture(at("a/deep/x.jpg"), 90);
    write(at("a/notes.txt"), "no image");
    write(at(".cache/y.png"), "hidden");
    let set = folders(root.path(), OnBad::Fail).unwrap();
    assert_eq!(set.classes(), ["a/deep", "b"]);
    assert_eq!(set.labels(), [0, 1, 1]);
    let limits = ImageLimits::default();
    let pixels = set.image(1, &limits).unwrap();
    assert_eq!((pixels.width, pixels.height, pixels.channels), (8, 6, 3));
    assert_eq!(pixels.data[..3], [10, 5, 7]);

    picture(at("stray.png"), 1);
    let set = folders(root.path(), OnBad::Skip).unwrap();
    assert_eq!(set.refused().count(Reason::LabelOutOfRange), 1);
    let error = folders(root.path(), OnBad::Fail).unwrap_err().to_string();
    assert!(
        error.starts_with("1 records refused: 1 labels out of range (such as stray.png"),
        "{error}"
    );
}

#[test]
fn bad_images_and_single_items_are_refused_one_by_one() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for n in 0..3 {
        picture(at(&format!("a/{n}.png")), n);
        picture(at(&format!("b/{n}.jpg")), n);
    }
    picture(at("c/alone.png"), 1);
    for (name, kind) in [("a/cut.png", "a/0.png"), ("b/cut.jpg", "b/0.jpg")] {
        let whole = fs::read(at(kind)).unwrap();
        write(at(name), &whole[..whole.len() / 2]);
    }
    write(at("a/empty.png"), "");
    write(at("a/text.png"), "no image at all");
    let load = || folders(root.path(), OnBad::Skip).unwrap();
    let limits = ImageLimits::default();
    let set = load().verify(&limits, OnBad::Skip).unwrap();
    assert_eq!(set.refused().count(Reason::UnreadableImage), 4);
    assert_eq!(set.refused().examples().len(), 3);
    assert_eq!(set.len(), 7);
    let set = set.without_single_items(OnBad::Skip).unwrap();
    assert_eq!(set.labels(), [0, 0, 0, 1, 1, 1]);
    assert_eq!(set.refused().count(Reason::OneItemClass), 1);
    assert_eq!(set.refused().total(), 5);
    assert!(load().verify(&limits, OnBad::Fail).is_err());
    assert!(load().without_single_items(OnBad::Fail).is_err());

    let held_out = set.select_classes(&[1]).unwrap();
    assert_eq!(
        (held_out.classes(), held_out.labels()),
        (&["b".to_owned()][..], vec![0; 3])
    );
    assert!(set.select_classes(&[9]).is_err());
}

#[test]
fn images_are_set_aside_evenly() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for n in 0..7 {
        picture(at(&format!("a/{n}.png")), n);
    }
    for n in 0..3 {
        picture(at(&format!("b/{n}.png")), 10 + n);
    }
    let set = folders(root.path(), OnBad::Fail).unwrap();
    let shades = |set: &Dataset| -> Vec<u8> {
        let limits = ImageLimits::default();
        let shade = |n| set.image(n, &limits).unwrap().data[0];
        (0..set.len()).map(shade).collect()
    };
    let (kept, aside) = set.set_aside(2).unwrap();
    // Both classes stay; the small one gives none.
    assert_eq!(kept.classes(), aside.classes());
    assert_eq!(shades(&aside), [3, 6]);
    assert_eq!(aside.labels(), [0, 0]);
    assert_eq!(shades(&kept), [0, 1, 2, 4, 5, 10, 11, 12]);
    let (kept, aside) = set.set_aside(5).unwrap();
    assert_eq!((kept.len(), shades(&aside)), (5, vec![1, 2, 4, 5, 6]));
    for wrong in [0, 1, 6, usize::MAX] {
        let error = set.set_aside(wrong).unwrap_err().to_string();
        assert!(error.contains("largest class has 7"), "{error}");
    }
}

#[test]
fn images_within_limits_only() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("p.png");
    picture(path.clone(), 3);
    let limits = ImageLimits {
        side: 7,
        ..ImageLimits::default()
    };
    assert!(decode(&path, &limits).is_err());
    let limits = ImageLimits {
        bytes: 100,
        ..ImageLimits::default()
    };
    assert!(decode(&path, &limits).is_err());
    assert!(decode(&root.path().join("none.png"), &ImageLimits::default()).is_err());
    // A jpeg under the name of a png, as in public sets.
    picture(root.path().join("q.jpg"), 9);
    fs::rename(root.path().join("q.jpg"), &path).unwrap();
    assert_eq!(decode(&path, &ImageLimits::default()).unwrap().channels, 3);
    // Transparent and 16-bit grey.
    let grey = image::ImageBuffer::from_pixel(2, 2, image::LumaA([0x8000u16, 0]));
    image::DynamicImage::ImageLumaA16(grey).save(&path).unwrap();
    let grey = decode(&path, &ImageLimits::default()).unwrap();
    assert_eq!(
        grey,
        Pixels {
            width: 2,
            height: 2,
            channels: 1,
            data: vec![128; 4]
        }
    );
    assert_eq!(grey.into_rgb().data, [128; 12]);
}

#[test]
fn fail_every_truncation_of_an_image() {
    let root = tempfile::tempdir().unwrap();
    for name in ["p.png", "p.jpg"] {
        let path = root.path().join(name);
        picture(path.clone(), 100);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() - 16 {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(
                decode(&path, &ImageLimits::default()).is_err(),
                "{name} {length}"
            );
        }
    }
}

#[test]
fn cub_splits_its_classes_in_halves() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let classes: String = (1..=200)
        .map(|n| format!("{n} {n:03}.Bird_{n}\n"))
        .collect();
    write(at("classes.txt"), classes);
    write(
        at("images.txt"),
        "1 001.Bird_1/a.jpg\n2 100.Bird_100/b.jpg\n3 101.Bird_101/c.jpg\n4 200.Bird_200/d.jpg\n5 x/e.jpg\n6 ../f.jpg\n7 x/g.jpg\n",
    );
    write(
        at("image_class_labels.txt"),
        "1 1\n2 100\n3 101\n4 200\n5 201\n6 1\n",
    );
    let split = cub(root.path(), OnBad::Skip).unwrap();
    assert_eq!(split.train.labels(), [0, 99]);
    assert_eq!(split.train.classes()[99], "100.Bird_100");
    let test = together(&split);
    assert_eq!(test.labels(), [0, 99]);
    assert_eq!(test.classes()[0], "101.Bird_101");
    let refused = split.train.refused();
    assert_eq!(refused.count(Reason::LabelOutOfRange), 1);
    assert_eq!(refused.count(Reason::BadLine), 2);
    let text = refused_by(cub(root.path(), OnBad::Fail));
    assert!(text.contains("class 201 of images/x/e.jpg"), "{text}");
}

#[test]
fn cars_from_its_annotations_or_a_list() {
    let root = tempfile::tempdir().unwrap();
    let check = |split: &Split| {
        assert_eq!(split.train.labels(), [0, 1, 97, 0]);
        assert_eq!(together(split).labels(), [0, 97, 0]);
        assert_eq!(split.train.refused().count(Reason::LabelOutOfRange), 2);
    };
    let list = "path,class\ncar_ims/1.jpg,1\ncar_ims/2.jpg,2\ncar_ims/3.jpg,98\ncar_ims/4.jpg,99\ncar_ims/5.jpg,196\ncar_ims/6.jpg,1\ncar_ims/7.jpg,99\ncar_ims/8.jpg,0\ncar_ims/9.jpg,197\n";
    write(root.path().join("cars_annos.csv"), list);
    check(&cars(root.path(), OnBad::Skip).unwrap());
    let mat = include_bytes!("fixtures/cars_annos_small.mat");
    write(root.path().join("cars_annos.mat"), mat);
    let split = cars(root.path(), OnBad::Skip).unwrap();
    check(&split);
    assert_eq!(split.train.classes()[97], "Make 98 Sedan 2012");
    refused_by(cars(root.path(), OnBad::Fail));
    write(root.path().join("cars_annos.mat"), &mat[..400]);
    assert!(cars(root.path(), OnBad::Skip).is_err());
}

#[test]
fn sop_takes_its_lists() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let heading = "image_id class_id super_class_id path\n";
    write(
        at("Ebay_train.txt"),
        format!(
            "{heading}1 1 1 bicycle_final/1_0.JPG\n2 1 1 bicycle_final/1_1.JPG\n3 2 1 bicycle_final/2_0.JPG\n4 two 1 x.JPG\n5 2 1\n"
        ),
    );
    write(
        at("Ebay_test.txt"),
        format!("{heading}6 11319 1 chair_final/3_0.JPG\n7 11319 1 chair_final/3_1.JPG\n"),
    );
    let split = sop(root.path(), OnBad::Skip).unwrap();
    assert_eq!(split.train.labels(), [0, 0, 1]);
    assert_eq!(split.train.refused().count(Reason::BadLine), 2);
    assert_eq!(together(&split).classes(), ["11319"]);
    refused_by(sop(root.path(), OnBad::Fail));
}

#[test]
fn in_shop_has_a_query_and_a_gallery() {
    let root = tempfile::tempdir().unwrap();
    let list = "5\nimage_name item_id evaluation_status\nimg/W/id_01/a.jpg  id_01  train\nimg/W/id_02/b.jpg id_02 query\nimg/W/id_03/c.jpg id_03 query\nimg/W/id_03/d.jpg id_03 gallery\nimg/W/id_02/e.jpg id_02 gallery\nimg/W/id_02/f.jpg id_02 other\n";
    write(root.path().join("Eval/list_eval_partition.txt"), list);
    let split = in_shop(root.path(), OnBad::Skip).unwrap();
    assert_eq!(split.train.classes(), ["id_01"]);
    assert_eq!(split.train.refused().count(Reason::BadLine), 1);
    let Testing::Apart { query, gallery } = split.testing else {
        panic!("together");
    };
    assert_eq!(query.labels(), [0, 1]);
    assert_eq!(gallery.labels(), [1, 0]);
    assert_eq!(query.classes(), gallery.classes());
    refused_by(in_shop(root.path(), OnBad::Fail));
}

#[test]
fn omniglot_and_cifar_are_folders_with_a_split() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    picture(at("images_background_small1/Greek/character01/1.png"), 1);
    picture(at("images_background_small2/Greek/character02/1.png"), 2);
    assert!(matches!(
        omniglot(root.path(), OnBad::Skip),
        Err(LearnError::Empty { .. })
    ));
    picture(at("images_background_small2/Latin/character01/1.png"), 2);
    let split = omniglot(root.path(), OnBad::Fail).unwrap();
    assert_eq!(split.train.classes(), ["Greek/character01"]);
    // The small sets share alphabets: what was trained on is no test.
    assert_eq!(together(&split).classes(), ["Latin/character01"]);
    picture(at("images_background/Tagalog/character02/1.png"), 1);
    picture(at("images_evaluation/Keble/character03/1.png"), 2);
    let split = omniglot(root.path(), OnBad::Fail).unwrap();
    assert_eq!(split.train.classes(), ["Tagalog/character02"]);
    assert_eq!(together(&split).classes(), ["Keble/character03"]);

    picture(at("train/cat/1.jpg"), 1);
    picture(at("test/dog/1.jpg"), 2);
    let split = cifar(root.path(), OnBad::Fail).unwrap();
    assert_eq!(split.train.classes(), ["cat"]);
    assert!(cifar(&at("nowhere"), OnBad::Skip).is_err());
}

fn idx_bytes(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    for size in sizes {
        bytes.extend(size.to_be_bytes());
    }
    bytes.extend(data);
    bytes
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn idx_tree(root: &Path) {
    for part in ["train", "t10k"] {
        let images: Vec<u8> = (0..24).collect();
        write(
            root.join(format!("{part}-images-idx3-ubyte.gz")),
            packed(&idx_bytes(&[4, 2, 3], &images)),
        );
        write(
            root.join(format!("{part}-labels-idx1-ubyte")),
            idx_bytes(&[4], &[0, 1, 2, 1]),
        );
    }
}

#[test]
fn idx_files_plain_and_packed() {
    let root = tempfile::tempdir().unwrap();
    idx_tree(root.path());
    let split = idx(root.path(), &["zero", "one", "two"], OnBad::Fail).unwrap();
    assert_eq!(split.train.labels(), [0, 1, 2, 1]);
    let image = together(&split).image(3, &ImageLimits::default()).unwrap();
    assert_eq!((image.width, image.height, image.channels), (3, 2, 1));
    assert_eq!(image.data, [18, 19, 20, 21, 22, 23]);
    let set = split
        .train
        .verify(&ImageLimits::default(), OnBad::Fail)
        .unwrap();
    let set = set.without_single_items(OnBad::Skip).unwrap();
    assert_eq!(set.labels(), [1, 1]);
    assert_eq!(set.image(1, &ImageLimits::default()).unwrap().data[0], 18);
    // One class fewer than the labels name.
    let split = idx(root.path(), &["zero", "one"], OnBad::Skip).unwrap();
    assert_eq!(split.train.refused().count(Reason::LabelOutOfRange), 1);
    assert_eq!(
        split.train.image(2, &ImageLimits::default()).unwrap().data[0],
        18
    );
    refused_by(idx(root.path(), &["zero", "one"], OnBad::Fail));
}

#[test]
fn fail_idx_files_that_are_not() {
    let root = tempfile::tempdir().unwrap();
    idx_tree(root.path());
    let load = || idx(root.path(), &["a", "b", "c"], OnBad::Skip);
    let images = root.path().join("train-images-idx3-ubyte");
    let whole = idx_bytes(&[4, 2, 3], &[0; 24]);
    for length in 0..whole.len() {
        fs::write(&images, &whole[..length]).unwrap();
        assert!(load().is_err(), "{length}");
    }
    fs::write(&images, [&whole[..], &[0]].concat()).unwrap();
    assert!(
        load()
            .unwrap_err()
            .to_string()
            .contains("more than the 24 bytes")
    );
    for at in 0..16 {
        let mut flipped = whole.clone();
        flipped[at] ^= 0xff;
        fs::write(&images, &flipped).unwrap();
        assert!(load().is_err(), "{at}");
    }
    // A claim far above what is there, and one that overflows.
    fs::write(&images, idx_bytes(&[1000, 1000, 1000], &[0; 24])).unwrap();
    assert!(load().is_err());
    fs::write(&images, idx_bytes(&[u32::MAX; 3], &[0; 24])).unwrap();
    assert!(load().unwrap_err().to_string().contains("claims more than"));
    // A truncated archive.
    fs::remove_file(&images).unwrap();
    let archive = packed(&whole);
    for length in 0..archive.len() - 8 {
        fs::write(images.with_extension("gz"), &archive[..length]).unwrap();
        assert!(load().is_err(), "{length}");
    }
}

/// Images of CIFAR: every label's bytes, then a picture in three planes.
fn cifar_bytes(labels: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, labels) in labels.iter().enumerate() {
        bytes.extend(*labels);
        for colour in 0..3 {
            bytes.extend((0..1024).map(|at| (at + 7 * number + 50 * colour) as u8));
        }
    }
    bytes
}

#[test]
fn cifars_binary_files() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for batch in 1..=5 {
        let labels: [&[u8]; 3] = [&[batch], &[0], &[10]];
        write(at(&format!("data_batch_{batch}.bin")), cifar_bytes(&labels));
    }
    write(at("test_batch.bin"), cifar_bytes(&[&[9], &[9]]));
    let split = cifar(root.path(), OnBad::Skip).unwrap();
    assert_eq!(split.train.labels(), [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
    assert_eq!(split.train.refused().count(Reason::LabelOutOfRange), 5);
    assert_eq!(split.train.classes()[9], "9");
    let image = split.train.image(1, &ImageLimits::default()).unwrap();
    assert_eq!((image.width, image.height, image.channels), (32, 32, 3));
    assert_eq!(image.data[..6], [7, 57, 107, 8, 58, 108]);
    assert_eq!(split.train.places(root.path())[2], "#3");
    refused_by(cifar(root.path(), OnBad::Fail));
    write(at("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
    let split = cifar(root.path(), OnBad::Skip).unwrap();
    assert_eq!(together(&split).classes()[9], "j");

    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    write(at("train.bin"), cifar_bytes(&[&[19, 99], &[3, 0]]));
    write(at("test.bin"), cifar_bytes(&[&[3, 7]]));
    let split = cifar(root.path(), OnBad::Fail).unwrap();
    assert_eq!(split.train.labels(), [99, 0]);
    assert_eq!(together(&split).labels(), [7]);
}

#[test]
fn fail_files_that_are_not_cifars() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    let refused = || cifar(root.path(), OnBad::Skip).unwrap_err().to_string();
    assert!(refused().contains("data_batch_1.bin"));
    let whole = cifar_bytes(&[&[0, 1]]);
    write(at("test.bin"), &whole);
    for length in (0..whole.len()).step_by(59) {
        write(at("train.bin"), &whole[..length]);
        assert!(refused().contains("whole number of images"), "{length}");
    }
    write(at("train.bin"), [&whole[..], &[0]].concat());
    assert!(refused().contains("whole number of images"));
    // Labels are the only bytes that can be wrong.
    let mut flipped = whole.clone();
    flipped[1] ^= 0xff;
    write(at("train.bin"), flipped);
    assert!(refused().contains("no usable record"));
    write(at("train.bin"), &whole);
    cifar(root.path(), OnBad::Skip).unwrap();
    write(at("fine_label_names.txt"), "apple\n");
    assert!(refused().contains("names 1 classes"));
    fs::remove_file(at("fine_label_names.txt")).unwrap();
    // No room is made for what a length claims.
    let file = fs::File::create(at("train.bin")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(refused().contains("more than"));
}

#[test]
fn pictures_have_no_classes() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    picture(at("b.png"), 20);
    picture(at("a/deep/x.jpg"), 10);
    write(at("a/notes.txt"), "no image");
    let set = pictures(root.path()).unwrap();
    assert_eq!((set.labels(), set.classes().len()), (vec![0, 0], 1));
    assert_eq!(set.places(root.path()), ["a/deep/x.jpg", "b.png"]);
    let one = pictures(&at("b.png")).unwrap();
    assert_eq!(one.len(), 1);
    assert!(pictures(&at("nowhere")).is_err());
    std::fs::create_dir(at("empty")).unwrap();
    assert!(pictures(&at("empty")).is_err());
}
