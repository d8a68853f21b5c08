//! The arguments that name a checkpoint and say how to open it, shared by the subcommands.

use crate::failure::Failure;
use crate::progress::while_waiting;
use sae::container::Check;
use sae::model::ScreenKind;
use sae::{Description, Level, OpenOptions, Sae};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct ModelArgs {
    /// The checkpoint: a file as it was downloaded, or its folder
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,

    /// Give what the checkpoint does not say, such as `k=64`; can be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,

    /// Refuse config keys that nobody reads, instead of listing them
    #[arg(long)]
    strict: bool,

    /// How much of the file to verify: every value and checksum, or only small files in full
    #[arg(long, value_enum, default_value_t = CheckArg::Quick)]
    check: CheckArg,

    #[command(flatten)]
    level: LevelArg,

    #[command(flatten)]
    screen: ScreenArgs,
}

/// Which screen preparing builds.
#[derive(clap::Args)]
pub(crate) struct ScreenArgs {
    /// Screen of a prepared model: `auto` (a proven one, if it pays), `proven`, `dithered` (bounds
    /// that hold for inputs chosen without knowledge of the seed) or `none`
    #[arg(long, value_name = "KIND", value_parser = screen, default_value = "auto")]
    screen: ScreenKind,

    /// Seed of a dithered screen [default: from the weights]
    #[arg(long, value_name = "NUMBER")]
    screen_seed: Option<u64>,

    /// A dithered screen decides wrongly with probability at most two to the minus this
    #[arg(long, value_name = "NUMBER", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    screen_delta: u32,

    /// Compare every encode with the dense scan
    #[arg(long)]
    screen_check: bool,
}

fn screen(text: &str) -> Result<ScreenKind, String> {
    ScreenKind::from_name(text).ok_or_else(|| "expected auto, proven, dithered or none".into())
}

#[derive(clap::Args)]
pub(crate) struct LevelArg {
    /// Instruction-set level to use, one of `sae levels` [default: the best]
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub(crate) level: Option<Level>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum CheckArg {
    /// Headers and vectors; everything in files below 16 MiB
    Quick,
    /// Every value and every checksum
    Full,
}

impl ModelArgs {
    /// How to open, with more settings than were given.
    pub(crate) fn options(&self, more: &[(String, String)]) -> OpenOptions {
        let mut options = OpenOptions::default();
        options.check = match self.check {
            CheckArg::Quick => Check::Quick,
            CheckArg::Full => Check::Full,
        };
        options.strict = self.strict;
        options.level = self.level.level;
        options.set.clone_from(&self.set);
        options.screen.kind = self.screen.screen;
        options.screen.seed = self.screen.screen_seed;
        options.screen.delta_exponent = self.screen.screen_delta;
        options.screen.check = self.screen.screen_check;
        options.set.extend_from_slice(more);
        options
    }

    pub(crate) fn open(&self) -> Result<Sae<'static>, Failure> {
        let options = self.options(&[]);
        let open = || Sae::open(&self.path, &options);
        Ok(while_waiting("opening the checkpoint", open)?)
    }
}

impl ModelArgs {
    /// Opens another checkpoint in the same way, with settings of its own.
    pub(crate) fn open_other(
        &self,
        path: &Path,
        set: &[(String, String)],
    ) -> Result<Sae<'static>, Failure> {
        let mut options = self.options(&[]);
        options.set = set.to_vec();
        let open = || Sae::open(path, &options);
        Ok(while_waiting("opening the checkpoint", open)?)
    }

    /// What the checkpoint is, also if it does not open as an [`Sae`].
    pub(crate) fn describe(&self) -> Result<Description, Failure> {
        let options = self.options(&[]);
        Ok(Description::open(&self.path, &options)?)
    }

    /// Opens without comparing checksums that [`Sae::verify`] compares.
    pub(crate) fn open_unchecked(&self) -> Result<Sae<'static>, Failure> {
        let mut options = self.options(&[]);
        options.check = Check::Vectors;
        let open = || Sae::open(&self.path, &options);
        Ok(while_waiting("opening the checkpoint", open)?)
    }
}

pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

fn level(text: &str) -> Result<Level, String> {
    Level::from_name(text).ok_or_else(|| {
        "expected scalar, avx2, avx512, neon or simd128 (see `sae levels`)".to_string()
    })
}
