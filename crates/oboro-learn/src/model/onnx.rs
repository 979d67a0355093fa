use super::weights::Found;
use burn::store::bridge;
use burn::tensor::{DType, TensorData};
use prost::Message;

/// ONNX's `ModelProto`, as far as weights need it. Other fields are skipped.
#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Initializer>,
}

/// `TensorProto`.
#[derive(Clone, PartialEq, Message)]
struct Initializer {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

const EXTERNAL: i32 = 1;

/// The named floating-point tensors of a model; others are constants of its
/// operators.
pub(super) fn initializers(bytes: &[u8]) -> Result<Found, String> {
    let model = Model::decode(bytes).map_err(|error| error.to_string())?;
    let graph = model
        .graph
        .ok_or("there is no graph in it; export the model again")?;
    let mut found = Found::new();
    for tensor in graph.initializer {
        let dtype = match tensor.data_type {
            1 => DType::F32,
            10 => DType::F16,
            11 => DType::F64,
            16 => DType::BF16,
            _ => continue,
        };
        let name = tensor.name;
        if tensor.data_location == EXTERNAL {
            return Err(format!(
                "tensor {name} lies in another file; export the model into one file"
            ));
        }
        if name.starts_with("onnx::") && tensor.dims.len() > 1 {
            return Err(format!(
                "its exporter renamed tensors, as in {name}, and may have merged them; export with training=TrainingMode.PRESERVE and do_constant_folding=False, or give the weights as safetensors"
            ));
        }
        let wrong = || format!("tensor {name} has not as much data as its shape says");
        let shape = tensor
            .dims
            .iter()
            .map(|&dim| usize::try_from(dim).ok())
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(wrong)?;
        let bytes = if !tensor.raw_data.is_empty() {
            tensor.raw_data
        } else if dtype == DType::F64 {
            let values = tensor.double_data.iter();
            values.flat_map(|v| v.to_ne_bytes()).collect()
        } else {
            let values = tensor.float_data.iter();
            values.flat_map(|v| v.to_ne_bytes()).collect()
        };
        let needed = shape
            .iter()
            .try_fold(dtype.size(), |size, &dim| size.checked_mul(dim));
        if needed != Some(bytes.len()) {
            return Err(wrong());
        }
        let data = TensorData::from_bytes_vec(bytes, shape, dtype);
        found.insert(name.clone(), bridge::from_data(data, name, None));
    }
    Ok(found)
}
