use super::network::{Backbone, Network};
use super::settings::Settings;
use super::weights::{Found, Mismatch, load};
use crate::LearnError;
use burn::module::Module;
use burn::store::{BurnToPyTorchAdapter, ModuleSnapshot, ModuleStore, SafetensorsStore};
use burn::tensor::Device;
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use std::io::{self, Read};

/// Where the settings stand among a file's metadata.
const KEY: &str = "oboro_network";
/// How errors name what has no path.
const ORIGIN: &str = "the saved network";

impl Network {
    /// The network as a safetensors file: every tensor in PyTorch's layout
    /// under `backbone.` or `heads.`, with the settings among the metadata.
    /// The same network gives the same bytes.
    ///
    /// Running statistics are those after the last batch, also while training
    /// goes on.
    ///
    /// # Errors
    /// When a tensor cannot be read back from the device.
    pub fn to_bytes(&self) -> Result<Vec<u8>, LearnError> {
        let failed = |what: String| LearnError::Setting {
            what: "the device of a network to be saved",
            actual: what,
            wanted: "free the device and save again",
        };
        let settings =
            serde_json::to_string(self.settings()).map_err(|error| failed(error.to_string()))?;
        let mut store = SafetensorsStore::from_bytes(None)
            .clear_metadata()
            .metadata(KEY, settings)
            .with_to_adapter(BurnToPyTorchAdapter)
            .skip_enum_variants(true);
        // A copy that stands still: burn keeps the last update of running
        // statistics apart until the next one.
        self.valid()
            .save_into(&mut store)
            .map_err(|error| failed(error.to_string()))?;
        store.get_bytes().map_err(|error| failed(error.to_string()))
    }

    /// Makes a network from what [`Self::to_bytes`] gave, on `device`.
    ///
    /// # Errors
    /// When the bytes are not a saved network.
    ///
    /// # Security
    /// Sizes are checked against the bytes before a tensor is made of them.
    pub fn from_bytes(bytes: &[u8], device: &Device) -> Result<Self, LearnError> {
        let (settings, found) = parse(bytes)?;
        // Every value is replaced; the generator only numbers the parameters.
        let mut rng = ChaCha20Rng::from_seed([0; 32]);
        let mut network = settings.build(device, &mut rng)?;
        network.fill(&found)?;
        Ok(network)
    }

    /// Replaces every value by a saved one. Parameters keep their identity,
    /// so an optimiser goes on with its own state.
    ///
    /// # Errors
    /// When the bytes are not a saved network with these settings; then the
    /// network is as it was.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), LearnError> {
        let (settings, found) = parse(bytes)?;
        if settings != *self.settings() {
            return Err(unfit(Mismatch::Settings));
        }
        self.fill(&found)
    }

    fn fill(&mut self, found: &Found) -> Result<(), LearnError> {
        let known = |name: &&String| name.starts_with("backbone.") || name.starts_with("heads.");
        if let Some(tensor) = found.keys().find(|name| !known(name)) {
            return Err(unfit(Mismatch::Unknown {
                tensor: tensor.clone(),
            }));
        }
        // Into a copy of the heads first: if the backbone does not fit, they
        // are dropped, and it is the last that can fail.
        let mut heads = self.heads.clone();
        load(&mut heads, found, Some("heads.")).map_err(unfit)?;
        match &mut self.backbone {
            Backbone::Convolutional(backbone) => load(backbone, found, Some("backbone.")),
            Backbone::ResidualNetwork(backbone) => load(backbone, found, Some("backbone.")),
            Backbone::VisionTransformer(backbone) => load(backbone, found, Some("backbone.")),
        }
        .map_err(unfit)?;
        self.heads = heads;
        Ok(())
    }
}

fn unfit(mismatch: Mismatch) -> LearnError {
    LearnError::Weights {
        origin: ORIGIN.to_owned(),
        mismatch,
    }
}

/// The settings and tensors of a saved network.
fn parse(bytes: &[u8]) -> Result<(Settings, Found), LearnError> {
    let refused = |what: String| LearnError::Malformed {
        path: ORIGIN.into(),
        what,
    };
    let settings = settings(bytes).ok_or_else(|| {
        refused("it does not carry the settings of a network; give a file saved here".to_owned())
    })?;
    settings.check()?;
    // A few bytes of settings must not make a network of gigabytes.
    let needed = settings.parameters().saturating_mul(4);
    if (bytes.len() as u64) < needed {
        return Err(refused(format!(
            "its settings need {needed} bytes of parameters where the file has {}; get the file again",
            bytes.len()
        )));
    }
    let found = SafetensorsStore::from_bytes(Some(bytes.to_vec()))
        .get_all_tensors()
        .cloned()
        .map_err(|error| refused(error.to_string()))?;
    Ok((settings, found))
}

/// Most bytes of a header; safetensors' own limit.
const HEADER_LIMIT: u64 = 100_000_000;

/// From the header: eight bytes of length, then JSON.
fn settings(bytes: &[u8]) -> Option<Settings> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    in_header(rest.get(..length)?)
}

/// The settings that a file carries; none where it is another's.
pub(super) fn settings_of(mut file: impl Read) -> io::Result<Option<Settings>> {
    let mut length = [0; 8];
    match file.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u64::from_le_bytes(length);
    if length > HEADER_LIMIT {
        return Ok(None);
    }
    // Grows with what is there, not with what the length claims.
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header)?;
    Ok(in_header(&header))
}

fn in_header(header: &[u8]) -> Option<Settings> {
    let header: serde_json::Value = serde_json::from_slice(header).ok()?;
    let text = header.get("__metadata__")?.get(KEY)?.as_str()?;
    serde_json::from_str(text).ok()
}
