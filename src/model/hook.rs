//! Where in a language model rows come from, read from the names that publishers write.

/// A place in a transformer block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HookPoint {
    /// The token embedding, before the first block.
    Embedding,
    /// The residual stream that enters the block.
    ResidPre,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// The residual stream that leaves the block.
    ResidPost,
    /// All attention heads, concatenated, before the output projection.
    Heads,
    /// What attention adds to the residual stream (after a norm behind it, if there is one).
    AttnOut,
    /// What the MLP reads: the residual stream after the norm before the MLP, its weights applied.
    MlpIn,
    /// What the MLP adds to the residual stream (after a norm behind it, if there is one).
    MlpOut,
}

/// A hook point of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hook {
    /// The place in the block.
    pub point: HookPoint,
    /// The block, from 0. 0 for [`HookPoint::Embedding`].
    pub layer: u32,
}

/// What stands before the number of a block, in names of TransformerLens and of Hugging Face
/// modules.
const BLOCKS: &[&str] = &[
    "blocks.",
    "model.language_model.layers.",
    "language_model.model.layers.",
    "model.layers.",
    "layers.",
    "transformer.h.",
    "gpt_neox.layers.",
    "encoder.layer.",
    "h.",
];

/// What stands behind the number, and what it means. Left out because they mean two things:
/// `hook_mlp_in` and `ln2.hook_normalized` (before or after the norm, with or without its weights),
/// and the module outputs `mlp` and `self_attn` of models with a norm behind them.
const POINTS: &[(&str, HookPoint)] = &[
    ("", HookPoint::ResidPost),
    (".output", HookPoint::ResidPost),
    (".hook_resid_pre", HookPoint::ResidPre),
    (".hook_resid_mid", HookPoint::ResidMid),
    (".hook_resid_post", HookPoint::ResidPost),
    (".attn.hook_z", HookPoint::Heads),
    (".self_attn.o_proj.input", HookPoint::Heads),
    (".hook_attn_out", HookPoint::AttnOut),
    (".post_attention_layernorm.output", HookPoint::AttnOut),
    (".hook_mlp_out", HookPoint::MlpOut),
    (".post_feedforward_layernorm.output", HookPoint::MlpOut),
    (".pre_feedforward_layernorm.output", HookPoint::MlpIn),
];

impl Hook {
    /// Reads a hook name: `blocks.12.hook_resid_post` of TransformerLens, a module path of Hugging
    /// Face (`model.layers.12`, `transformer.h.5`, `model.layers.2.self_attn.o_proj.input`), or
    /// `resid_post_layer_12` of dictionary_learning. `None` if the name is not known or means more
    /// than one place.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if matches!(name, "hook_embed" | "embed_tokens" | "model.embed_tokens") {
            let (point, layer) = (HookPoint::Embedding, 0);
            return Some(Hook { point, layer });
        }
        for (start, point) in [
            ("resid_pre_layer_", HookPoint::ResidPre),
            ("resid_post_layer_", HookPoint::ResidPost),
        ] {
            if let Some(layer) = name.strip_prefix(start).and_then(number) {
                return Some(Hook { point, layer });
            }
        }
        let rest = BLOCKS.iter().find_map(|start| name.strip_prefix(start))?;
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        let (layer, place) = rest.split_at(digits.unwrap_or(rest.len()));
        let layer = number(layer)?;
        // `post_attention_layernorm` is a norm behind attention in Gemma and the norm before the
        // MLP in Llama: only the form with `.output` of Gemma Scope is read.
        let found = POINTS.iter().find(|point| point.0 == place);
        found.map(|&(_, point)| Hook { point, layer })
    }
}

fn number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::{Hook, HookPoint};

    #[test]
    fn names_of_publishers_are_read_and_ambiguous_ones_are_not() {
        let read = |name| Hook::parse(name).map(|hook| (hook.point, hook.layer));
        for (name, expected) in [
            ("blocks.12.hook_resid_post", (HookPoint::ResidPost, 12)),
            ("blocks.0.hook_resid_pre", (HookPoint::ResidPre, 0)),
            ("blocks.3.hook_resid_mid", (HookPoint::ResidMid, 3)),
            ("blocks.5.attn.hook_z", (HookPoint::Heads, 5)),
            ("blocks.5.hook_attn_out", (HookPoint::AttnOut, 5)),
            ("blocks.1.hook_mlp_out", (HookPoint::MlpOut, 1)),
            ("model.layers.7", (HookPoint::ResidPost, 7)),
            ("model.layers.7.output", (HookPoint::ResidPost, 7)),
            ("layers.24", (HookPoint::ResidPost, 24)),
            ("transformer.h.6", (HookPoint::ResidPost, 6)),
            ("gpt_neox.layers.2", (HookPoint::ResidPost, 2)),
            ("encoder.layer.3", (HookPoint::ResidPost, 3)),
            ("resid_post_layer_3", (HookPoint::ResidPost, 3)),
            (
                "model.layers.2.self_attn.o_proj.input",
                (HookPoint::Heads, 2),
            ),
            (
                "model.layers.2.pre_feedforward_layernorm.output",
                (HookPoint::MlpIn, 2),
            ),
            (
                "model.layers.2.post_feedforward_layernorm.output",
                (HookPoint::MlpOut, 2),
            ),
            ("hook_embed", (HookPoint::Embedding, 0)),
        ] {
            assert_eq!(read(name), Some(expected), "{name}");
        }
        for name in [
            "",
            "blocks..hook_resid_post",
            "blocks.x.hook_resid_post",
            "blocks.-1.hook_resid_post",
            "blocks.99999999999.hook_resid_post",
            "blocks.1.hook_mlp_in",
            "blocks.1.ln2.hook_normalized",
            "blocks.1.hook_resid_post.extra",
            "model.layers.3.mlp",
            "model.layers.+3",
            "resid_post_layer_",
        ] {
            assert_eq!(read(name), None, "{name}");
        }
    }
}
