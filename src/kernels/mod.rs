//! Numbers only: slices in, slices out.
