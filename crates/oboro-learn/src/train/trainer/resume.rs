//! What a trainer keeps in its run's folder, and how it goes on from there.

use super::Trainer;
use crate::LearnError;
use crate::train::checkpoint::{self, Checkpoint};
use crate::train::config::setting;
use crate::train::observer::Observer;
use crate::train::optimizer::Moments;
use crate::train::parameters::{self, Values};
use burn::tensor::{Tensor, TensorData};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

impl Trainer {
    /// Keeps checkpoints and metrics in a folder, which is made.
    ///
    /// # Errors
    /// When the folder cannot be made or holds checkpoints already.
    pub fn into_folder(mut self, run: &Path) -> Result<Self, LearnError> {
        fs::create_dir_all(run).map_err(|source| LearnError::Write {
            path: run.to_owned(),
            source,
        })?;
        if let Some(latest) = Checkpoint::latest(run)? {
            return Err(setting(
                "the folder of a new run",
                latest.display(),
                "resume that run or choose an empty folder",
            ));
        }
        self.run = Some(run.to_owned());
        Ok(self)
    }

    /// Goes on where the newest checkpoint in a folder stands.
    ///
    /// Seed, batch and parts must be those of the checkpoint; other settings
    /// may change, such as the rate or the number of epochs.
    ///
    /// # Errors
    /// When there is no checkpoint, it cannot be read, or it is of another
    /// network, loss or batch.
    pub fn resume(mut self, run: &Path) -> Result<Self, LearnError> {
        let Some(folder) = Checkpoint::latest(run)? else {
            return Err(setting(
                "the folder of a run to resume",
                run.display(),
                "give one that holds checkpoints",
            ));
        };
        let saved = Checkpoint::read(&folder)?;
        let (then, now) = (&saved.config, &self.config);
        if (then.seed, then.classes, then.items, then.parts)
            != (now.seed, now.classes, now.items, now.parts)
        {
            return Err(setting(
                "the seed, classes, items and parts",
                format!(
                    "{}, {}, {}, {}",
                    now.seed, now.classes, now.items, now.parts
                ),
                "give those of the checkpoint",
            ));
        }
        let unfit = |what| LearnError::Malformed {
            path: folder.clone(),
            what: format!("{what}; resume with the network and the loss that it was written with"),
        };
        self.network.restore(&saved.network)?;
        self.loss = parameters::restore(self.loss, saved.loss).map_err(unfit)?;
        let lengths = self.lengths()?;
        for (path, (updates, first, second)) in saved.moments {
            if lengths.get(&path) != first.shape.first() {
                return Err(unfit(format!("the moments of {path} fit no parameter")));
            }
            let tensor =
                |v: Values| Tensor::from_data(TensorData::new(v.values, v.shape), &self.device);
            let moments = Moments {
                updates,
                first: tensor(first),
                second: tensor(second),
            };
            self.optimizer.moments.insert(path, moments);
        }
        self.step = saved.step;
        self.best = saved.best;
        self.stale = saved.stale;
        self.labels = Some(saved.labels);
        if self.about.is_null() {
            self.about = saved.about;
        }
        self.run = Some(run.to_owned());
        self.last = Some(folder);
        Ok(self)
    }

    /// The number of values of each parameter, by `module.path`.
    fn lengths(&self) -> Result<BTreeMap<String, usize>, LearnError> {
        let network = parameters::collect(&self.network)?;
        let loss = parameters::collect(&self.loss)?;
        let named = |module: &'static str, values: BTreeMap<String, Values>| {
            values
                .into_iter()
                .map(move |(path, v)| (format!("{module}.{path}"), v.values.len()))
        };
        Ok(named("network", network)
            .chain(named("loss", loss))
            .collect())
    }

    /// Refuses labels other than those of the checkpoint: batches are drawn
    /// from them.
    pub(super) fn bind(&mut self, labels: &[u32]) -> Result<(), LearnError> {
        let mut hasher = blake3::Hasher::new();
        for label in labels {
            hasher.update(&label.to_le_bytes());
        }
        let hash = hasher.finalize().to_hex().to_string();
        match &self.labels {
            Some(then) if *then != hash => Err(setting(
                "the labels of the training set",
                format!("{} in number", labels.len()),
                "resume with the images that the run was started with",
            )),
            _ => {
                self.labels = Some(hash);
                Ok(())
            }
        }
    }

    /// Writes a checkpoint, unless this step has one or there is no folder.
    pub(super) fn save(&mut self, observer: &mut dyn Observer) -> Result<(), LearnError> {
        let Some(run) = self.run.clone() else {
            return Ok(());
        };
        if self.last.as_ref() == Some(&checkpoint::folder(&run, self.step)) {
            return Ok(());
        }
        let folder = self.checkpoint()?.write(&run)?;
        observer.saved(&folder);
        self.last = Some(folder);
        Ok(())
    }

    fn checkpoint(&self) -> Result<Checkpoint, LearnError> {
        let mut moments = BTreeMap::new();
        for (path, state) in &self.optimizer.moments {
            let first = parameters::values(state.first.clone())?;
            let second = parameters::values(state.second.clone())?;
            moments.insert(path.clone(), (state.updates, first, second));
        }
        Ok(Checkpoint {
            step: self.step,
            best: self.best,
            stale: self.stale,
            config: self.config.clone(),
            labels: self.labels.clone().unwrap_or_default(),
            about: self.about.clone(),
            network: self.network.to_bytes()?,
            loss: parameters::collect(&self.loss)?,
            moments,
        })
    }
}
