//! `sae demo`: the embedded SAE on the tokens of eight sentences.

mod data;
mod measure;
mod page;

use crate::failure::Failure;
use crate::labels::LabelsArg;
use crate::model::LevelArg;
use crate::style::Style;
use data::{Data, Token};
use measure::{Quality, Times};
use sae::{Error, Features, OpenOptions, Sae, Scratch};
use serde_json::{Value, json};
use std::io::Write;

const EXAMPLES: &str = "\
Examples:
  sae demo
  sae demo --sentence 2 --top 5
  sae demo --json | jq '.sentences[0].tokens[3].features[0]'";

/// Run the embedded SAE on eight sentences and show their strongest features.
///
/// The SAE was trained with SAELens on all-MiniLM-L6-v2 (output of encoder layer 4 of 6); the
/// sentences' activations, the SAE and labels for its features are part of this program. A label
/// names the tokens on which its feature is strongest in a text collection; --labels shows others.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Show one sentence only, 1 to 8
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=8))]
    sentence: Option<u16>,

    /// Features to show per token, strongest first [default: up to 3, as the terminal has room]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    top: Option<u16>,

    #[command(flatten)]
    labels: LabelsArg,

    /// Print JSON, with the special tokens too
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    level: LevelArg,
}

/// Features per token where the terminal's width does not decide.
const TOP: usize = 3;

/// All that there is to show.
struct Results {
    data: Data,
    features: Features,
    quality: Quality,
    /// The same for the special tokens, on which the SAE was not trained.
    special: Quality,
    times: Times,
}

pub(crate) fn run(args: &Args, style: Style, out: &mut impl Write) -> Result<(), Failure> {
    let mut data = Data::embedded()?;
    let mut options = OpenOptions::default();
    options.level = args.level.level;
    let sae = Sae::from_bytes(
        data::WEIGHTS_NAME,
        data::WEIGHTS,
        Some(data::CONFIG),
        &options,
    )?;
    if let Some(labels) = args.labels.open(sae.d_sae())? {
        data.relabel(&labels, sae.d_sae());
    }
    let results = Results::of(&sae, data)?;
    let sentences = match args.sentence {
        Some(number) => usize::from(number) - 1..usize::from(number),
        None => 0..results.data.sentences.len(),
    };
    let top = args.top.map(usize::from);
    if args.json {
        let value = results.to_json(&sae, sentences, top.unwrap_or(TOP));
        writeln!(out, "{value:#}")?;
        return Ok(());
    }
    page::print(&results, &sae, sentences, top, style, out)
}

impl Results {
    fn of(sae: &Sae<'_>, data: Data) -> Result<Self, Error> {
        let rows = data.activations.rows()?;
        let mut scratch = Scratch::new(sae)?;
        let mut features = Features::new();
        sae.encode(rows, &mut scratch, &mut features)?;
        let mut decoded = vec![0.0; rows.rows() * sae.d_out()];
        sae.decode(&features, Some(rows), &mut scratch, &mut decoded)?;
        let special = |wanted: bool| {
            let tokens = data.tokens.iter().enumerate();
            tokens
                .filter(move |(_, token)| token.special == wanted)
                .map(|(row, _)| row)
        };
        Ok(Results {
            quality: Quality::of(rows, &features, &decoded, special(false)),
            special: Quality::of(rows, &features, &decoded, special(true)),
            times: Times::of(sae, rows, &mut scratch)?,
            features,
            data,
        })
    }

    /// The rows of a sentence, with their tokens.
    fn tokens_of(&self, sentence: usize) -> impl Iterator<Item = (usize, &Token)> {
        let tokens = self.data.tokens.iter().enumerate();
        tokens.filter(move |(_, token)| token.sentence == sentence)
    }

    /// The `top` strongest features of a row, strongest first; equal ones in order of their index.
    fn strongest(&self, row: usize, top: usize) -> Vec<(u32, f32)> {
        let mut pairs: Vec<(u32, f32)> = self.features.row(row).map_or(Vec::new(), |row| {
            let pairs = row.indices.iter().zip(row.values);
            pairs.map(|(&index, &value)| (index, value)).collect()
        });
        pairs.sort_by(|a, b| b.1.total_cmp(&a.1));
        pairs.truncate(top);
        pairs
    }

    fn to_json(&self, sae: &Sae<'_>, sentences: std::ops::Range<usize>, top: usize) -> Value {
        let feature = |&(index, value): &(u32, f32)| {
            let label = self.data.label(index);
            json!({ "index": index, "value": value, "label": label })
        };
        let token = |(row, token): (usize, &Token)| {
            let fired = self.features.row(row).map_or(0, |row| row.indices.len());
            let strongest: Vec<_> = self.strongest(row, top).iter().map(feature).collect();
            json!({
                "row": row,
                "token": token.text,
                "special": token.special,
                "fired": fired,
                "features": strongest,
            })
        };
        let sentences: Vec<_> = sentences
            .map(|sentence| {
                let tokens: Vec<_> = self.tokens_of(sentence).map(token).collect();
                json!({ "text": self.data.sentences[sentence], "tokens": tokens })
            })
            .collect();
        json!({
            "sae": sae.description().to_json(),
            "model": self.data.model,
            "point": self.data.point,
            "sentences": sentences,
            "quality": self.quality.to_json(),
            "quality_special_tokens": self.special.to_json(),
            "time_per_token": self.times.to_json(),
        })
    }
}
