//! The floating-point parameters of a module by their paths, in the order in
//! which the module names them.

use super::config::setting;
use crate::LearnError;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Tensor, TensorData};
use std::collections::BTreeMap;

/// A parameter's values, row after row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Values {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// Where a traversal is.
#[derive(Default)]
pub(super) struct Path(Vec<String>);

impl Path {
    pub(super) fn enter(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    pub(super) fn exit(&mut self) {
        self.0.pop();
    }

    pub(super) fn joined(&self) -> String {
        self.0.join(".")
    }
}

/// Reads all parameters and buffers.
///
/// # Errors
/// When one is not in single precision.
pub(super) fn collect(module: &impl Module) -> Result<BTreeMap<String, Values>, LearnError> {
    let mut collector = Collector {
        path: Path::default(),
        found: Ok(BTreeMap::new()),
    };
    module.visit(&mut collector);
    collector.found
}

struct Collector {
    path: Path,
    found: Result<BTreeMap<String, Values>, LearnError>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Ok(found) = &mut self.found {
            match values(param.val()) {
                Ok(values) => {
                    found.insert(self.path.joined(), values);
                }
                Err(error) => self.found = Err(error),
            }
        }
    }
}

/// The values of a tensor.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Values, LearnError> {
    let shape = tensor.dims().to_vec();
    let data = tensor.into_data();
    match data.as_slice::<f32>() {
        Ok(slice) => Ok(Values {
            shape,
            values: slice.to_vec(),
        }),
        Err(_) => Err(setting(
            "the precision of a parameter",
            format!("{:?}", data.dtype()),
            "train in single precision",
        )),
    }
}

/// Puts values in place of all parameters and buffers.
///
/// # Errors
/// What is wrong: a parameter without values, of another shape, or values
/// without a parameter.
pub(super) fn restore<M: Module>(module: M, values: BTreeMap<String, Values>) -> Result<M, String> {
    let mut restorer = Restorer {
        path: Path::default(),
        values,
        error: None,
    };
    let module = module.map(&mut restorer);
    if let Some(error) = restorer.error {
        return Err(error);
    }
    match restorer.values.into_keys().next() {
        Some(path) => Err(format!("it has {path}, which the network has not")),
        None => Ok(module),
    }
}

struct Restorer {
    path: Path,
    values: BTreeMap<String, Values>,
    error: Option<String>,
}

impl ModuleMapper for Restorer {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.joined();
        let (id, tensor, mapper) = param.consume();
        let tensor = match self.values.remove(&path) {
            None => {
                self.error.get_or_insert(format!("it has no {path}"));
                tensor
            }
            Some(values) if values.shape != tensor.dims() || tensor.dtype() != DType::F32 => {
                self.error.get_or_insert(format!(
                    "{path} is {:?} in it and {:?} in the network",
                    values.shape,
                    tensor.dims()
                ));
                tensor
            }
            Some(values) => Tensor::from_data(
                TensorData::new(values.values, tensor.dims()),
                &tensor.device(),
            ),
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}
