//! What a pickle can be made of here: plain values, and the few globals that are known.

use crate::container::quoted;
use crate::dtype::Dtype;
use crate::error::Error;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A value; containers are indices into the machine's lists. `'p` is the pickle's text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'p> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, little-endian two's complement.
    Big(&'p [u8]),
    Float(f64),
    Text(&'p str),
    Bytes(&'p [u8]),
    /// A list or a set.
    List(usize),
    Tuple(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

/// The globals that are known. None of them is code here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// `torch.FloatStorage` and so on.
    Storage(Dtype),
    /// `torch.storage._load_from_bytes`: a storage whose bytes lie in the pickle.
    StorageFromBytes,
    /// A class of [`CONFIGS`]: a dictionary.
    Config,
    /// `torch.Size`: a tuple.
    Size,
    /// `torch.device`: a text.
    Device,
    /// `torch.float32` and so on, as values of a config: a text.
    Dtype(&'static str),
}

/// A storage that the pickle refers to: bytes that lie elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'p> {
    pub(super) key: &'p str,
    pub(super) dtype: Dtype,
    /// Elements in the storage.
    pub(super) elements: u64,
    /// For views into a storage (legacy files): first element and number of elements.
    pub(super) view: Option<(u64, u64)>,
    /// The bytes, if they lie in the pickle itself.
    pub(super) contents: Option<&'p [u8]>,
}

/// A tensor as the pickle describes it; nothing is checked against the storage yet.
#[derive(Clone, Debug)]
pub(super) struct TensorParts {
    pub(super) storage: usize,
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

/// What a value is, for messages.
pub(super) fn kind(value: Value<'_>) -> &'static str {
    match value {
        Value::None => "None",
        Value::Bool(_) => "a bool",
        Value::Int(_) | Value::Big(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Text(_) => "a text",
        Value::Bytes(_) => "bytes",
        Value::List(_) => "a list",
        Value::Tuple(_) => "a tuple",
        Value::Dict(_) => "a dictionary",
        Value::Global(_) => "a class or function",
        Value::Storage(_) => "a storage without a tensor",
        Value::Tensor(_) => "a tensor",
    }
}

pub(super) fn refused(found: impl Into<String>) -> Error {
    Error::UnsafePickle {
        found: found.into(),
    }
}

/// Classes that publishers' training scripts pickle beside the weights: data classes, whose
/// attributes are plain data. An instance is read as the dictionary of its attributes; nothing of
/// the class is needed for that, or known here.
const CONFIGS: &[(&str, &str)] = &[
    ("vit_prisma.sae.config", "VisionModelSAERunnerConfig"),
    ("vit_prisma.configs.HookedViTConfig", "HookedViTConfig"),
    ("sae_training.config", "ViTSAERunnerConfig"),
    ("src.sae_training.config", "ViTSAERunnerConfig"),
];

/// The global of that name, or the refusal of the pickle.
pub(super) fn global(module: &str, name: &str) -> Result<Global, Error> {
    Ok(match (module, name) {
        ("collections", "OrderedDict") => Global::OrderedDict,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Global::RebuildParameter,
        ("torch", "FloatStorage") => Global::Storage(Dtype::F32),
        ("torch", "HalfStorage") => Global::Storage(Dtype::F16),
        ("torch", "BFloat16Storage") => Global::Storage(Dtype::BF16),
        ("torch", "DoubleStorage") => Global::Storage(Dtype::F64),
        ("torch", "LongStorage") => Global::Storage(Dtype::I64),
        ("torch", "IntStorage") => Global::Storage(Dtype::I32),
        ("torch", "ShortStorage") => Global::Storage(Dtype::I16),
        ("torch", "CharStorage") => Global::Storage(Dtype::I8),
        ("torch", "ByteStorage") => Global::Storage(Dtype::U8),
        ("torch", "BoolStorage") => Global::Storage(Dtype::Bool),
        ("torch.storage", "_load_from_bytes") => Global::StorageFromBytes,
        ("torch", "Size") => Global::Size,
        ("torch", "device") => Global::Device,
        ("torch", "float32") => Global::Dtype("torch.float32"),
        ("torch", "float16") => Global::Dtype("torch.float16"),
        ("torch", "bfloat16") => Global::Dtype("torch.bfloat16"),
        ("torch", "float64") => Global::Dtype("torch.float64"),
        class if CONFIGS.contains(&class) => Global::Config,
        _ => {
            return Err(refused(format!(
                "{}.{}",
                quoted(module.as_bytes()),
                quoted(name.as_bytes())
            )));
        }
    })
}
