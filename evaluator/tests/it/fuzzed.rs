//! What must hold whatever lies in a file: it is taken, or refused with a reason. `fuzz/targets` looks for bytes for which it does
//! not, [`crate::corpora`] tries those that it kept. The readers are taken as files, so that the fuzzer needs no libtorch.

use std::collections::HashMap;
use std::io::Cursor;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use search::Architecture;
use search::tensors;

#[path = "../../src/checkpoint/held.rs"]
#[expect(unreachable_pub, reason = "public where it belongs")]
mod held;
#[path = "../../src/corpus/token_format.rs"]
mod token_format;

use held::{DIVIDED_LOGITS, Held, ORIGIN, Origin};
use token_format::{Format, HEADER_BYTES, MAGIC, Unclear};

/// A file of token ids: all of it is header and whole ids. What is written as llm.c does is read as such.
pub(crate) fn token_file(bytes: &[u8]) {
    match format(bytes) {
        Ok(Format { width, header_bytes, tokens }) => {
            assert_eq!(header_bytes + tokens * width.bytes(), bytes.len() as u64);
            assert!(header_bytes.is_multiple_of(width.bytes()) && header_bytes + tokens > 0);
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
    for (magic, width) in MAGIC {
        let whole = bytes.len() / width.bytes() as usize * width.bytes() as usize;
        let tokens = whole as u64 / width.bytes();
        let mut file = vec![0; HEADER_BYTES as usize];
        for (at, number) in [magic, 1, tokens as u32].into_iter().enumerate() {
            file[4 * at..4 * at + 4].copy_from_slice(&number.to_le_bytes());
        }
        file.extend(&bytes[..whole]);
        assert_eq!(format(&file), Ok(Format { width, header_bytes: HEADER_BYTES, tokens }));
        // One byte more or less is no such file.
        file.push(0);
        assert!(format(&file).is_err(), "a byte that is no id");
    }
}

fn format(bytes: &[u8]) -> Result<Format, String> {
    Format::of(&mut Cursor::new(bytes), bytes.len() as u64).map_err(|unclear| match unclear {
        Unclear::Refused(reason) => reason,
        Unclear::Io(error) => panic!("memory can be read: {error}"),
    })
}

/// A checkpoint: its values are as many as their shapes say, and what is written is what is read.
pub(crate) fn checkpoint(bytes: &[u8]) {
    match Held::read(bytes) {
        Ok(held) => {
            let file = SafeTensors::deserialize(bytes).expect("it was read");
            for name in file.names() {
                values(&held, name, &file.tensor(name).expect("it is named"));
            }
            if let Some(origin) = held.origin() {
                let json = serde_json::to_string(&origin).expect("it is JSON");
                assert_eq!(serde_json::from_str::<Origin>(&json).expect("it was written"), origin);
                of_stack(&held, &origin.architecture);
            }
            assert_eq!(held.has_divided_logits(), held.told(DIVIDED_LOGITS).is_some());
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
    let (numbers, _) = bytes.as_chunks::<4>();
    let data = numbers.as_flattened();
    let origin = Origin {
        architecture: String::from_utf8_lossy(bytes).into_owned(),
        seed: numbers.len() as u64,
        settings: "{}".to_owned(),
        rule: 1,
        corpus_tokens: u64::MAX,
        step: 0,
    };
    let json = serde_json::to_string(&origin).expect("it is JSON");
    let view = TensorView::new(Dtype::F32, vec![numbers.len()], data).expect("it is as long");
    let metadata = HashMap::from([(ORIGIN.to_owned(), json)]);
    let written = safetensors::serialize([("x", view)], Some(metadata)).expect("it can be written");
    let held = Held::read(&written).expect("it was written");
    assert_eq!(held.origin(), Some(origin));
    let shape = [numbers.len() as u64];
    assert_eq!(held.values("x", &shape), Ok(data));
}

fn values(held: &Held<'_>, name: &str, view: &TensorView<'_>) {
    assert!(held.has(name));
    let shape: Vec<u64> = view.shape().iter().map(|&n| n as u64).collect();
    let is_f32 = view.dtype() == Dtype::F32;
    let found = held.values(name, &shape);
    assert_eq!(found.is_ok(), is_f32, "{name}");
    if let Ok(found) = found {
        let elements: u64 = shape.iter().product();
        assert_eq!(found.len() as u64, 4 * elements, "{name} {shape:?}");
        let floats = held.floats(name).expect("they are floats");
        assert_eq!(floats.len() as u64, elements);
    }
    let other: Vec<u64> = shape.iter().copied().chain([2]).collect();
    assert!(held.values(name, &other).is_err(), "of another shape");
    assert!(held.floats(name).is_ok() == is_f32, "of another type");
}

/// The tensors of the stack that a file names are there in their shapes, or it is said which is not.
fn of_stack(held: &Held<'_>, text: &str) {
    let Ok(stack) = text.parse::<Architecture>() else { return };
    if stack.layers().len() <= 64 {
        for spec in tensors::tensors(&stack) {
            match held.values(&spec.name, &spec.shape) {
                Ok(values) => assert_eq!(values.len() as u64, 4 * spec.elements()),
                Err(reason) => assert!(reason.contains(&spec.name), "{reason}"),
            }
        }
    }
}
