//! From target scale to proxy scale: the same depth, pattern and proportions at other widths.

use search::Architecture;
use search::architecture::{Ffn, Layer, whole};

use crate::error::{Error, Result};

/// The architecture with every width times `scale`. Windows, state widths of Mamba2 and the vocabulary stay.
///
/// A mixer's width is scaled by its number of heads if that comes out whole, otherwise by the width of its heads.
///
/// # Errors
/// When a width does not come out whole.
pub fn scaled(architecture: &Architecture, scale: f64) -> Result<Architecture> {
    if !(scale.is_finite() && scale > 0.0) {
        return Err(Error::Setting { name: "width_scale", expected: "above 0", got: scale });
    }
    // Exactly one is the usual case.
    if (scale - 1.0).abs() < f64::EPSILON {
        return Ok(architecture.clone());
    }
    let error =
        |problem: String| Error::Scale { scale, architecture: architecture.to_string(), problem };
    let layers = architecture
        .layers()
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let in_layer = |name: &str, n: u32| {
                error(format!("{name} of layer {index} would be {}", f64::from(n) * scale))
            };
            let mixer = match layer.mixer {
                None => None,
                Some(mixer) => Some(mixer.scaled(scale).map_err(|(name, n)| in_layer(name, n))?),
            };
            let ffn = match layer.ffn {
                None => None,
                Some(ffn) => {
                    let width = whole(ffn.width, scale);
                    Some(Ffn {
                        width: width.ok_or_else(|| in_layer("ffn_width", ffn.width))?,
                        ..ffn
                    })
                }
            };
            Ok(Layer { mixer, ffn })
        })
        .collect::<Result<Vec<_>>>()?;
    let d_model = architecture.d_model();
    let d_scaled = whole(d_model, scale)
        .ok_or_else(|| error(format!("d_model would be {}", f64::from(d_model) * scale)))?;
    Architecture::new(d_scaled, architecture.vocab(), architecture.tied_embeddings(), layers)
        .and_then(|proxy| proxy.with_meta_tokens(architecture.meta_tokens()))
        .map_err(|problem| error(problem.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, scale: f64) -> Result<String> {
        scaled(&text.parse().expect("the test's text is valid"), scale).map(|a| a.to_string())
    }

    #[test]
    fn widths_shrink_together() {
        let target = "d=256,vocab=256,tied | gdn(h=2,k=64,v=128)+ffn(768) | swa(h=4,kv=2,k=64,w=128) | m2(h=8,p=64,n=64) | gsc(c=256,k=3)";
        let proxy = "d=128,vocab=256,tied | gdn(h=1,k=64,v=128)+ffn(384) | swa(h=2,kv=1,k=64,w=128) | m2(h=4,p=64,n=64) | gsc(c=128,k=3)";
        assert_eq!(check(target, 0.5).expect("every width is even"), proxy);
        assert_eq!(check(target, 1.0).expect("nothing changes"), target);
    }

    #[test]
    fn odd_head_counts_shrink_their_heads() {
        let target = "d=96,vocab=256 | gdn(h=3,k=32,v=64) | attn(h=3,kv=1,k=32) | dn(h=1,k=8,v=8) | m2(h=3,p=32,n=16)";
        let proxy = "d=48,vocab=256 | gdn(h=3,k=16,v=32) | attn(h=3,kv=1,k=16) | dn(h=1,k=4,v=4) | m2(h=3,p=16,n=16)";
        assert_eq!(check(target, 0.5).expect("every width is even"), proxy);
    }

    #[test]
    fn what_does_not_come_out_whole_is_named() {
        let message =
            |text, scale| check(text, scale).expect_err("it cannot be scaled").to_string();
        assert!(message("d=9,vocab=256 | ffn(8)", 0.5).contains("d_model would be 4.5"));
        assert!(
            message("d=8,vocab=256 | ffn(8) | ffn(7)", 0.5)
                .contains("ffn_width of layer 1 would be 3.5")
        );
        assert!(
            message("d=8,vocab=256 | dn(h=1,k=7,v=8)", 0.5)
                .contains("key_width of layer 0 would be 3.5")
        );
        assert!(
            message("d=8,vocab=256 | gsc(c=7,k=3)", 0.5)
                .contains("channels of layer 0 would be 3.5")
        );
        assert!(
            message("d=8,vocab=256 | attn(h=1,kv=1,k=2)", 0.5).contains("head_width must be even")
        );
        assert!(message("d=8,vocab=256 | ffn(8)", f64::NAN).contains("width_scale"));
        assert!(message("d=8,vocab=256 | ffn(8)", 0.0).contains("width_scale"));
    }
}
