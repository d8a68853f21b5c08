//! libsae: the C ABI.
