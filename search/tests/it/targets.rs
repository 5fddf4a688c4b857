//! Which stacks other software holds, and what the others are told.

use search::Architecture;
use search::targets::Target;

fn said(target: Target, stack: &str) -> Vec<String> {
    let stack: Architecture = stack.parse().expect(stack);
    target.obstacles(&stack).iter().map(search::targets::Obstacle::text).collect()
}

#[test]
fn every_target_has_a_name_that_files_say_and_a_stack_that_it_holds() {
    let holds = [
        (Target::Llama, "d=64,vocab=256,tied | 2*attn(h=4,kv=2,k=16)+ffn(128)"),
        (Target::Ministral, "d=64,vocab=256 | swa(h=4,kv=2,k=16,w=32)+ffn(128)"),
        (Target::Qwen3, "d=64,vocab=256 | swa(h=4,kv=2,k=16,w=32,qknorm)+ffn(128)"),
        (
            Target::Qwen35Text,
            "d=64,vocab=256 | gdn(h=3,k=16,v=32)+ffn(128) | attn(h=4,kv=2,k=16,qknorm)+ffn(128)",
        ),
        (
            Target::OlmoHybrid,
            "d=64,vocab=256 | gdn(h=3,k=16,v=32)+ffn(128) | attn(h=4,kv=4,k=16,qknorm=whole,post)+ffn(128)",
        ),
        (
            Target::GraniteMoeHybrid,
            "d=64,vocab=256 | m2(h=8,p=16,n=32)+ffn(128) | attn(h=4,kv=4,k=16)+ffn(128)",
        ),
        (Target::Mamba2, "d=64,vocab=256 | 3*m2(h=8,p=16,n=32)"),
        (
            Target::NemotronH,
            "d=64,vocab=256 | m2(h=8,p=16,n=32) | attn(h=4,kv=2,k=32,rot=0)+relu2(200)",
        ),
        (
            Target::Lfm2,
            "d=64,vocab=256 | gsc(c=64,k=3)+ffn(128) | attn(h=4,kv=2,k=16,qknorm)+ffn(128)",
        ),
        (
            Target::NemotronFlash,
            "d=64,vocab=256,meta=4 | dn(h=4,k=16,v=16) | ffn(128) | m2(h=8,p=16,n=32) | attn(h=4,kv=2,k=16)+ffn(128)",
        ),
        (
            Target::Fla,
            "d=64,vocab=256 | dn(h=4,k=16,v=16)+ffn(96) | swa(h=4,kv=2,k=16,w=32)+ffn(96)",
        ),
        (Target::Gguf, "d=64,vocab=256 | 3*m2(h=8,p=16,n=32)"),
        (
            Target::LmEngine,
            "d=64,vocab=256 | gdn(h=3,k=16,v=32,nogate,neg)+ffn(96) | attn(h=4,kv=2,k=16,gate,rot=50)+relu2(40) | \
             swa(h=2,kv=1,k=32,w=9,rot=25)+ffn(128) | m2(h=8,p=16,n=32)+ffn(96)",
        ),
        (
            Target::Megatron,
            "d=64,vocab=256 | gdn(h=3,k=16,v=32,vg=2) | relu2(200) | swa(h=4,kv=2,k=16,w=9,qknorm,gate) | \
             attn(h=8,kv=2,k=16,rot=0)+ffn(96) | m2(h=8,p=16,n=32)",
        ),
    ];
    assert_eq!(holds.map(|(target, _)| target), Target::ALL);
    for (target, stack) in holds {
        assert_eq!(said(target, stack), [""; 0], "{}", target.name());
        let word = serde_json::to_value(target).expect("JSON");
        assert_eq!(word, target.name());
        assert_eq!(serde_json::from_value::<Target>(word).expect("a word"), target);
    }
}

#[test]
fn mixtures_of_experts_load_where_granite_has_them_and_are_refused_by_name_elsewhere() {
    let of =
        |ffn: &str| format!("d=64,vocab=256 | m2(h=8,p=16,n=32)+{ffn} | attn(h=4,kv=4,k=16)+{ffn}");
    assert_eq!(said(Target::GraniteMoeHybrid, &of("moe(32,e=8,k=2,s=1)")), [""; 0]);
    for target in Target::ALL {
        if target == Target::GraniteMoeHybrid {
            continue;
        }
        let said = said(target, &of("moe(32,e=8,k=2,s=1)"));
        let named = ["mixture of experts", "an FFN, and this type has none"];
        let is_named = |line: &String| named.iter().any(|name| line.contains(name));
        assert!(said.iter().any(is_named), "{}: {said:?}", target.name());
    }
    for (stack, says) in [
        (of("moe(32,e=8,k=2)"), "no shared expert"),
        (of("moe(32,e=8,k=1,s=1)"), "one expert for each token"),
        (of("moe(32,e=8,k=2,s=1)").replacen("e=8", "e=4", 1), "another FFN than the first"),
        (of("moe(32,e=8,k=2,s=1)").replacen("moe(32,e=8,k=2,s=1)", "ffn(32)", 1), "another FFN"),
    ] {
        let said = said(Target::GraniteMoeHybrid, &stack);
        assert!(said.iter().any(|line| line.contains(says)), "{stack}: {said:?}");
    }
}

#[test]
fn refusals_name_the_layers_and_what_would_do() {
    let every = "d=64,vocab=256,meta=2 | dn(h=4,k=16,v=16)+ffn(96) | kda(h=4,k=16,v=16)+ffn(96)";
    for target in [Target::LmEngine, Target::Megatron] {
        let said = said(target, every);
        assert!(said.iter().any(|line| line.starts_with("layer 0: DeltaNet")), "{said:?}");
        assert!(said.iter().any(|line| line.starts_with("layer 1: Kimi")), "{said:?}");
        assert!(said.iter().any(|line| line.starts_with("2 meta tokens")), "{said:?}");
    }
    let cases: [(Target, &str, &[&str]); 6] = [
        (
            Target::LmEngine,
            "d=64,vocab=256 | gdn(h=3,k=16,v=32)+ffn(96) | attn(h=4,kv=2,k=16,qknorm) | attn(h=6,kv=2,k=16,rot=0)+ffn(96)",
            &[
                "layer 1: no FFN, and this type has one in every layer; an FFN of 96 after it",
                "layer 0: an output gate behind the norm of the heads' outputs, and this trainer's stands before it; output_gate = false",
                "layer 1: norms of q and k, which this type has not; qk_norm = false",
                "layer 2: other rotary positions than attention before it, and this trainer has one kind; 16 channels of each \
                 head that turn, rope_theta = 10000",
                "layer 2: a number of heads that does not divide 64, the width of the model; heads = \"auto\"",
            ],
        ),
        (
            Target::Megatron,
            "d=64,vocab=256 | 2*gdn(h=3,k=16,v=32,nogate,neg) | attn(h=4,kv=2,k=16,qknorm=whole,post)",
            &[
                "layers 0–1: no output gate, which this trainer has; output_gate = true",
                "layers 0–1: negative eigenvalues, which this trainer has not; negative_eigenvalues = false",
                "layer 2: norms of q and k over all heads, and this trainer norms each head; qk_norm = true",
                "layer 2: norms behind attention and FFN, and this trainer's stand before them; norm_after = false",
            ],
        ),
        (
            Target::Megatron,
            "d=64,vocab=256 | attn(h=4,kv=2,k=16,rot=0) | attn(h=4,kv=2,k=16) | attn(h=4,kv=2,k=16,theta=500)",
            &[
                "layer 2: other rotary positions than attention before it, and this trainer has one kind; 16 channels of each \
               head that turn, rope_theta = 10000",
            ],
        ),
        (
            Target::NemotronFlash,
            "d=64,vocab=256 | dn(h=2,k=16,v=16,gate,neg) | ffn(96) | attn(h=4,kv=2,k=16) | m2(h=6,p=16,n=32) | relu2(128)",
            &[
                "layer 0: an output gate, which this type's DeltaNet has not; output_gate = false",
                "layer 0: negative eigenvalues, which this type has not; negative_eigenvalues = false",
                "layer 0: another number of heads than attention has, and this type has one number; heads = 4",
                "layer 0: keys or values that are not 64 wide together; key_width = value_width = 64 / heads",
                "layer 3: Mamba2 whose heads together are no whole multiple of 64 wide; heads = \"auto\"",
                "layer 3: Mamba2 of heads that are no multiple of 8, which its kernels want; a multiple of 8 heads",
                "layer 4: an FFN of another kind, and this type has one kind; SwiGLU",
                "layer 4: an FFN of another width, and this type has one width; ffn(96)",
                "layers 1, 4: an FFN whose width is no multiple of 128, as of FFNs that are layers of their own; ffn(128)",
            ],
        ),
        // an FFN after every mixer may have any width
        (Target::NemotronFlash, "d=64,vocab=256 | dn(h=2,k=32,v=32)+ffn(96)", &[]),
        (
            Target::Gguf,
            "d=64,vocab=256 | swa(h=4,kv=2,k=16,w=9,qknorm)+ffn(96)",
            &[
                "layer 0: a window, which llama.cpp's qwen3 ignores (llama.cpp's qwen3 is the closest); full attention",
            ],
        ),
    ];
    for (target, stack, expected) in cases {
        assert_eq!(said(target, stack), expected, "{}: {stack}", target.name());
    }
}
