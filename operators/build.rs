//! Compiles `src/libtorch.cpp` against libtorch, and lets the tests and programs of this package find libtorch.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=src/libtorch.cpp");
    let Ok(libtorch) = std::env::var("LIBTORCH") else {
        println!(
            "cargo:error=LIBTORCH is not set: run `make setup` once, then cargo finds libtorch by itself"
        );
        return;
    };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib");
    // libtorch's threads are OpenMP's; its own copy of the runtime lies beside it.
    println!("cargo:rustc-link-search=native={libtorch}/lib");
    println!("cargo:rustc-link-lib=dylib:+verbatim=libgomp.so.1");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .flag("-fopenmp")
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .include(format!("{libtorch}/include"))
        .include(format!("{libtorch}/include/torch/csrc/api/include"))
        .warnings(false)
        .file("src/libtorch.cpp")
        .compile("deltafront_libtorch");
}
