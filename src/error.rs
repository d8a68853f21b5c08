//! The one error type: a variant for each cause, with the names and numbers a user needs.

use crate::dtype::Dtype;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

/// What went wrong. Messages are lower case, without a full stop, identifiers in backticks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error that happened while the named file was being read.
    #[error("{file}: {source}")]
    InFile {
        /// Path or name of the file.
        file: String,
        /// The cause.
        source: Box<Error>,
    },
    /// The operating system refused.
    #[error("cannot {operation}: {message}")]
    Io {
        /// What was attempted: `open`, `map`, `read`, `write`, `list`.
        operation: &'static str,
        /// The system's words.
        message: String,
    },
    /// The file is of no kind that the library reads.
    #[error("not a checkpoint: {found}")]
    NotACheckpoint {
        /// What it looks like instead.
        found: String,
    },
    /// The file breaks the rules of its container.
    #[error("malformed {container}: {what}")]
    Malformed {
        /// `safetensors`, `zip`, `npy`, `torch`, `pickle`, `gguf`, `gzip`, `json`, `yaml`,
        /// `labels`, or `file` for what is none of them.
        container: &'static str,
        /// The rule that is broken, with names and numbers.
        what: String,
    },
    /// The file ends before what it promises.
    #[error("truncated {container}: {what} needs {needed} bytes, {available} are there")]
    Truncated {
        /// The container's name.
        container: &'static str,
        /// What was being read.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
    },
    /// A checksum stored in the file does not match its bytes.
    #[error("corrupt: `{member}` has checksum {found:08x}, the file says {expected:08x}")]
    Checksum {
        /// The archive member.
        member: String,
        /// Checksum in the file.
        expected: u32,
        /// Checksum of the bytes.
        found: u32,
    },
    /// A pack's self-test does not give what it gave when the pack was written: weights were
    /// damaged, or this machine or build computes wrongly.
    #[error("self-test: row {row}: expected {expected}, found {found}")]
    SelfTest {
        /// The row of the self-test.
        row: u64,
        /// What the pack says.
        expected: String,
        /// What was computed.
        found: String,
    },
    /// A size goes beyond one of the library's named limits.
    #[error("{what} is {found}, the limit is {limit}")]
    Limit {
        /// What is too large.
        what: String,
        /// The limit.
        limit: u64,
        /// The size found.
        found: u64,
    },
    /// The file uses a feature of its container that the library does not read.
    #[error("unsupported {container}: {what}")]
    UnsupportedContainer {
        /// The container's name.
        container: &'static str,
        /// What is not supported.
        what: String,
    },
    /// A pickle holds more than tensors and plain data. Nothing of it was run.
    #[error("refused pickle: it holds `{found}`")]
    UnsafePickle {
        /// Module and name of the global, or the opcode.
        found: String,
    },
    /// The number format of a tensor cannot be used where it stands.
    #[error("tensor `{tensor}`: unsupported dtype {found}")]
    UnsupportedDtype {
        /// The tensor.
        tensor: String,
        /// Its dtype, as the file names it.
        found: String,
    },
    /// Shape, dtype and byte range of a tensor disagree.
    #[error("tensor `{tensor}`: {dtype} of shape {shape:?} does not fit its {found} bytes")]
    TensorSize {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes present.
        found: u64,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error("missing tensor `{tensor}` ({convention})")]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// Who needs it: convention and architecture.
        convention: String,
    },
    /// A floating-point tensor that nobody knows: it might change the maths.
    #[error("unknown tensor `{tensor}`, {dtype} of shape {shape:?} ({convention})")]
    UnknownTensor {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// The convention that does not know it.
        convention: String,
    },
    /// A tensor has another shape than the model needs.
    #[error("tensor `{tensor}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The shape needed.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor holds a value that is not allowed there (NaN, infinity, a non-positive scale).
    #[error("tensor `{tensor}`: value {found} at index {index}")]
    BadValue {
        /// The tensor.
        tensor: String,
        /// Position in row-major order.
        index: u64,
        /// The value.
        found: f64,
    },
    /// No convention recognises these tensors.
    #[error("no known publisher stores these tensors: {found}")]
    UnknownConvention {
        /// The tensor names, shortened.
        found: String,
    },
    /// The architecture is known by name but its maths is not in the library, or unknown.
    #[error("unsupported architecture `{architecture}`")]
    UnsupportedArchitecture {
        /// Its name in the file.
        architecture: String,
    },
    /// A key that is needed is not in the config and cannot be derived from the tensors.
    #[error("missing `{key}`: {hint}")]
    MissingKey {
        /// The key.
        key: String,
        /// Where it could come from.
        hint: String,
    },
    /// A known key has a value that the library does not know, or that is out of range.
    #[error("`{key}`: expected {expected}, found `{found}`")]
    InvalidValue {
        /// The key.
        key: String,
        /// The allowed values.
        expected: String,
        /// The value found.
        found: String,
    },
    /// Under `strict`: a config key that no publisher's code reads at inference.
    #[error("unknown config key `{key}` (strict)")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// An argument's length does not match the model.
    #[error("{what}: expected {expected}, found {found}")]
    Length {
        /// Which argument, and the unit.
        what: &'static str,
        /// Length needed.
        expected: u64,
        /// Length given.
        found: u64,
    },
    /// With `check` in [`ScreenOptions`](crate::model::ScreenOptions): encoding through the screen
    /// gave other features than the dense scan. A defect of the library, a screen that belongs to
    /// other weights, or (dithered, once in `2^delta_exponent` decisions) bad luck.
    #[error("the screen gives {screened} features of a row, the dense scan {dense}: they differ")]
    ScreenMismatch {
        /// Features through the screen.
        screened: u64,
        /// Features of the dense scan.
        dense: u64,
    },
    /// A feature index is not below d_sae.
    #[error("feature {feature} is out of range: the model has {d_sae}")]
    FeatureOutOfRange {
        /// The feature asked for.
        feature: u64,
        /// Number of features.
        d_sae: u64,
    },
    /// An argument is outside its allowed range.
    #[error("{what}: expected {expected}, found {found}")]
    InvalidArgument {
        /// Which argument.
        what: &'static str,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The CPU, or this build, lacks the level that was asked for.
    #[error("level `{requested}` is not available here, these are: {available}")]
    LevelUnavailable {
        /// The level asked for.
        requested: String,
        /// The levels that are there.
        available: String,
    },
    /// There is no GPU adapter, or none that was asked for.
    #[error("no GPU adapter: asked for {asked}, found {found}")]
    NoAdapter {
        /// What was asked for.
        asked: String,
        /// The adapters that are there.
        found: String,
    },
    /// A GPU adapter is too small for what is asked of it.
    #[error("GPU adapter `{adapter}`, {limit}: {needed} are needed, it has {found}")]
    AdapterLimit {
        /// The adapter.
        adapter: String,
        /// Which limit.
        limit: &'static str,
        /// How much is needed.
        needed: u64,
        /// How much it has.
        found: u64,
    },
    /// A GPU adapter lacks something.
    #[error("GPU adapter `{adapter}` lacks {feature}")]
    AdapterFeature {
        /// The adapter.
        adapter: String,
        /// What it lacks.
        feature: &'static str,
    },
    /// A GPU device failed. The model goes on on the CPU.
    #[error("GPU device `{adapter}`, {failure}: {message}")]
    Device {
        /// Its adapter.
        adapter: String,
        /// What failed.
        failure: DeviceFailure,
        /// The driver's words.
        message: String,
    },
    /// A GPU device has no memory left. The model goes on on the CPU.
    #[error("GPU device `{adapter}` is out of memory: {bytes} bytes for {what}")]
    DeviceMemory {
        /// Its adapter.
        adapter: String,
        /// What for.
        what: &'static str,
        /// How many bytes.
        bytes: u64,
    },
    /// Memory could not be had.
    #[error("out of memory: {bytes} bytes for {what}")]
    OutOfMemory {
        /// What for.
        what: &'static str,
        /// How many bytes.
        bytes: u64,
    },
}

/// What failed on a GPU device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceFailure {
    /// It could not be opened.
    #[error("it cannot be opened")]
    Open,
    /// It was lost: removed, reset, or destroyed.
    #[error("it was lost")]
    Lost,
    /// A shader was not compiled.
    #[error("a shader was not compiled")]
    Shader,
    /// A buffer could not be mapped.
    #[error("mapping failed")]
    Mapping,
    /// Another call was refused.
    #[error("a call failed")]
    Call,
}

/// The number of an error's kind: stable, never reused, the same in Rust and in C
/// (`sae_status`). 0 is success and not a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(i32)]
pub enum Code {
    /// The operating system refused.
    Io = 2,
    /// Not a checkpoint, or no known convention.
    NotACheckpoint = 3,
    /// The file breaks the rules of its container.
    Malformed = 4,
    /// The file ends early.
    Truncated = 5,
    /// A checksum or a self-test does not match.
    Corrupt = 6,
    /// A size goes beyond a limit.
    Limit = 7,
    /// Something valid that the library does not read: dtype, compression, architecture.
    Unsupported = 8,
    /// A pickle that holds more than tensors and plain data.
    UnsafePickle = 9,
    /// A tensor is missing.
    MissingTensor = 10,
    /// A floating-point tensor that nobody knows.
    UnknownTensor = 11,
    /// Shapes disagree.
    Shape = 12,
    /// A value that is not allowed: in a tensor or in a config.
    InvalidValue = 13,
    /// A config key is missing.
    MissingKey = 14,
    /// A config key is unknown (strict).
    UnknownKey = 15,
    /// An argument has the wrong length.
    Length = 16,
    /// A feature index is out of range.
    FeatureOutOfRange = 17,
    /// An argument is outside its allowed range.
    InvalidArgument = 18,
    /// The level is not available.
    LevelUnavailable = 19,
    /// Memory could not be had.
    OutOfMemory = 20,
    /// No GPU adapter, or one that lacks something or is too small.
    NoAdapter = 21,
    /// A GPU device failed.
    Device = 22,
}

impl Error {
    /// The stable number of this error's kind.
    pub fn code(&self) -> Code {
        match self {
            Error::InFile { source, .. } => source.code(),
            Error::Io { .. } => Code::Io,
            Error::NotACheckpoint { .. } | Error::UnknownConvention { .. } => Code::NotACheckpoint,
            Error::Malformed { .. } | Error::TensorSize { .. } => Code::Malformed,
            Error::Truncated { .. } => Code::Truncated,
            Error::Checksum { .. } | Error::SelfTest { .. } | Error::ScreenMismatch { .. } => {
                Code::Corrupt
            }
            Error::Limit { .. } => Code::Limit,
            Error::UnsupportedContainer { .. }
            | Error::UnsupportedDtype { .. }
            | Error::UnsupportedArchitecture { .. } => Code::Unsupported,
            Error::UnsafePickle { .. } => Code::UnsafePickle,
            Error::MissingTensor { .. } => Code::MissingTensor,
            Error::UnknownTensor { .. } => Code::UnknownTensor,
            Error::Shape { .. } => Code::Shape,
            Error::BadValue { .. } | Error::InvalidValue { .. } => Code::InvalidValue,
            Error::MissingKey { .. } => Code::MissingKey,
            Error::UnknownKey { .. } => Code::UnknownKey,
            Error::Length { .. } => Code::Length,
            Error::FeatureOutOfRange { .. } => Code::FeatureOutOfRange,
            Error::InvalidArgument { .. } => Code::InvalidArgument,
            Error::LevelUnavailable { .. } => Code::LevelUnavailable,
            Error::NoAdapter { .. } | Error::AdapterLimit { .. } | Error::AdapterFeature { .. } => {
                Code::NoAdapter
            }
            Error::Device { .. } => Code::Device,
            Error::OutOfMemory { .. } | Error::DeviceMemory { .. } => Code::OutOfMemory,
        }
    }

    /// The same error with the name of the file it happened in. A file already named stays.
    #[must_use]
    pub fn in_file(self, file: impl Into<String>) -> Self {
        match self {
            named @ Error::InFile { .. } => named,
            cause => Error::InFile {
                file: file.into(),
                source: Box::new(cause),
            },
        }
    }

    /// The error without the file's name.
    pub fn cause(&self) -> &Error {
        match self {
            Error::InFile { source, .. } => source.cause(),
            cause => cause,
        }
    }
}
