use super::network::{Backbone, Network};
use super::{onnx, saved};
use crate::LearnError;
use crate::data::Input;
use burn::module::Module;
use burn::store::burn_pack::Tensor as Stored;
use burn::store::{
    BurnToPyTorchAdapter, ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter, PytorchStore,
    SafetensorsStore, bridge,
};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// The tensors of a file by name; their data is read when it is asked for.
pub(super) type Found = BTreeMap<String, Stored>;

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Tensors put into the backbone.
    pub tensors: usize,
    /// Tensors of the file that were not used: a classifier, for one.
    pub unused: Vec<String>,
}

/// Why weights do not fit a network.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// A tensor of the network that is not there.
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A tensor of another shape.
    Shape {
        /// Its name.
        tensor: String,
        /// The shape in the file.
        actual: Vec<usize>,
        /// The shape that the network needs.
        expected: Vec<usize>,
    },
    /// A tensor that the network does not have.
    Unknown {
        /// Its name.
        tensor: String,
    },
    /// A tensor that does not hold numbers with a fraction.
    Kind {
        /// Its name.
        tensor: String,
    },
    /// A tensor with a value that is not finite.
    NotFinite {
        /// Its name.
        tensor: String,
    },
    /// A tensor whose data cannot be read.
    Unreadable {
        /// Its name.
        tensor: String,
    },
    /// A saved network of another shape.
    Settings,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { tensor } => write!(
                f,
                "tensor {tensor} is missing; choose the architecture that they were made for"
            ),
            Self::Shape {
                tensor,
                actual,
                expected,
            } => write!(
                f,
                "tensor {tensor} has the shape {actual:?} where the network needs {expected:?}; choose the architecture and the input that they were made for"
            ),
            Self::Unknown { tensor } => write!(
                f,
                "the network has no place for tensor {tensor}; choose the architecture that they were made for"
            ),
            Self::Kind { tensor } => write!(
                f,
                "tensor {tensor} does not hold floating-point numbers; save the weights unquantised"
            ),
            Self::NotFinite { tensor } => write!(
                f,
                "tensor {tensor} holds a value that is not finite; take weights from before the training went wrong"
            ),
            Self::Unreadable { tensor } => write!(
                f,
                "the data of tensor {tensor} cannot be read; get the file again"
            ),
            Self::Settings => write!(
                f,
                "they were saved with other settings; build the network with the settings that the file carries"
            ),
        }
    }
}

/// Puts pretrained weights into the backbone; the heads stay as they are.
///
/// The file is a `.safetensors`, a PyTorch `.pth`, `.pt` or `.bin`, or an
/// `.onnx` whose initializers kept the names of the tensors (exported without
/// folding of constants, which merges normalisations). Names are those
/// of torchvision's residual networks and timm's transformers, or those of a
/// network saved here, after any prefix: `model.`, `state_dict.`, `backbone.`
/// and the like. A classifier is left out; every other tensor must have its
/// place. Half and double precision become the network's own.
///
/// # Errors
/// When the file cannot be read, or its weights do not fit: then the network
/// is as it was.
///
/// # Security
/// The file may come from a stranger: no code in it is run, and what it says
/// is compared with the network before anything is loaded.
pub fn load_weights(network: &mut Network, path: &Path) -> Result<Loaded, LearnError> {
    let found = read(path)?;
    let result = match &mut network.backbone {
        Backbone::Convolutional(backbone) => load(backbone, &found, None),
        Backbone::ResidualNetwork(backbone) => load(backbone, &found, None),
        Backbone::VisionTransformer(backbone) => load(backbone, &found, None),
    };
    result.map_err(|mismatch| LearnError::Weights {
        origin: path.display().to_string(),
        mismatch,
    })
}

/// The images that weights were made for, as far as their file says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MadeFor {
    /// Those of a network saved by this crate.
    Input(Input),
    /// Images with this number of channels.
    Channels(usize),
    /// It does not say.
    Unknown,
}

/// Reads which images the weights of a file were made for: a network begun
/// with them wants the same.
///
/// # Errors
/// When the file cannot be read.
///
/// # Security
/// As [`load_weights`].
pub fn weights_made_for(path: &Path) -> Result<MadeFor, LearnError> {
    if extension(path) == "safetensors" {
        let failed = |source| LearnError::Read {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(failed)?;
        if let Some(settings) = saved::settings_of(file).map_err(failed)? {
            settings.check()?;
            return Ok(MadeFor::Input(settings.input));
        }
    }
    let found = read(path)?;
    // The first convolution of each backbone; a deeper one has a longer prefix.
    let first = [
        "layers.0.conv.weight",
        "patch_embed.proj.weight",
        "conv1.weight",
    ]
    .into_iter()
    .find_map(|name| {
        let prefix = shortest_prefix(&found, name)?;
        found.get(&format!("{prefix}{name}"))
    });
    Ok(match first.map(|tensor| tensor.shape.to_vec()).as_deref() {
        Some(&[_, channels, _, _]) => MadeFor::Channels(channels),
        _ => MadeFor::Unknown,
    })
}

fn extension(path: &Path) -> String {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    extension.to_ascii_lowercase()
}

/// The tensors of a file.
fn read(path: &Path) -> Result<Found, LearnError> {
    let failed = |source| LearnError::Read {
        path: path.to_owned(),
        source,
    };
    // Opened first: the readers' own messages about missing files are long.
    let file = std::fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let malformed = |what: String| LearnError::Malformed {
        path: path.to_owned(),
        what,
    };
    // Messages of the readers may have several lines.
    let foreign = |error: String| malformed(error.split_whitespace().collect::<Vec<_>>().join(" "));
    match extension(path).as_str() {
        "safetensors" => SafetensorsStore::from_file(path)
            .get_all_tensors()
            .cloned()
            .map_err(|error| foreign(error.to_string())),
        "pth" | "pt" | "bin" => PytorchStore::from_file(path)
            .map_indices_contiguous(false)
            .get_all_tensors()
            .cloned()
            .map_err(|error| foreign(error.to_string())),
        "onnx" if size > i32::MAX as u64 => Err(malformed(
            "no ONNX file is larger than 2 GiB; give the weights as safetensors".to_owned(),
        )),
        "onnx" => {
            let bytes = std::fs::read(path).map_err(failed)?;
            onnx::initializers(&bytes).map_err(malformed)
        }
        _ => Err(malformed(
            "weights come as .safetensors, .pth, .pt, .bin or .onnx; give one of these".to_owned(),
        )),
    }
}

/// Tensors that a file may have and a backbone does not need: classifiers, and
/// a count that PyTorch keeps beside running statistics.
fn needless(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
        || ["fc.", "head.", "heads.", "head_dist.", "classifier."]
            .iter()
            .any(|classifier| name.starts_with(classifier))
}

/// Compares everything, then loads everything; `prefix` is found if not given.
pub(super) fn load<M: Module>(
    module: &mut M,
    found: &Found,
    prefix: Option<&str>,
) -> Result<Loaded, Mismatch> {
    let expected = module.collect(None, Some(Box::new(BurnToPyTorchAdapter)), true);
    let Some(first) = expected.first() else {
        return Ok(Loaded {
            tensors: 0,
            unused: found.keys().cloned().collect(),
        });
    };
    let missing = |tensor: &str| Mismatch::Missing {
        tensor: tensor.to_owned(),
    };
    let prefix = match prefix {
        Some(prefix) => prefix,
        None => shortest_prefix(found, &first.name).ok_or_else(|| missing(&first.name))?,
    };
    let mut ready = Vec::with_capacity(expected.len());
    for wanted in &expected {
        let stored = found
            .get(&format!("{prefix}{}", wanted.name))
            .ok_or_else(|| missing(&wanted.name))?;
        ready.push(fitting(wanted, stored)?);
    }
    let unused: Vec<String> = found
        .keys()
        .filter(|name| {
            let used = |name: &str| expected.iter().any(|wanted| wanted.name == name);
            !name.strip_prefix(prefix).is_some_and(used)
        })
        .cloned()
        .collect();
    let unknown = unused
        .iter()
        .filter_map(|name| name.strip_prefix(prefix))
        .find(|name| !needless(name));
    if let Some(tensor) = unknown {
        return Err(Mismatch::Unknown {
            tensor: tensor.to_owned(),
        });
    }
    let tensors = ready.len();
    let result = module.apply(ready, None, Some(Box::new(PyTorchToBurnAdapter)), true);
    // Nothing is left that could fail, and nothing may be passed over.
    match (result.errors.first(), result.missing.first()) {
        (Some(error), _) => Err(missing(&error.to_string())),
        (None, Some((tensor, _))) => Err(missing(tensor)),
        (None, None) => Ok(Loaded { tensors, unused }),
    }
}

/// What stands before `name` in the file.
fn shortest_prefix<'a>(found: &'a Found, name: &str) -> Option<&'a str> {
    found
        .keys()
        .filter_map(|key| key.strip_suffix(name))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .min_by_key(|prefix| prefix.len())
}

/// The tensor in the network's precision, if it fits.
fn fitting(wanted: &Stored, stored: &Stored) -> Result<Stored, Mismatch> {
    let tensor = wanted.name.clone();
    if stored.shape != wanted.shape {
        return Err(Mismatch::Shape {
            tensor,
            actual: stored.shape.to_vec(),
            expected: wanted.shape.to_vec(),
        });
    }
    if !stored.dtype.is_float() {
        return Err(Mismatch::Kind { tensor });
    }
    let data = match bridge::to_data(stored) {
        Ok(data) => data.convert_dtype(wanted.dtype),
        Err(_) => return Err(Mismatch::Unreadable { tensor }),
    };
    if data.iter::<f64>().any(|value| !value.is_finite()) {
        return Err(Mismatch::NotFinite { tensor });
    }
    Ok(bridge::from_data(data, tensor, None))
}
