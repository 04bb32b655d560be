//! Generates the gRPC code of `proto/`. protox reads the files itself: no `protoc` is needed.

use std::{env, error::Error, fs, path::Path};

use prost::Message;

const FOLDER: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let files = protox::compile(["events.proto"], [FOLDER])?;
    let out = env::var("OUT_DIR")?;
    // What reflection answers.
    fs::write(Path::new(&out).join("descriptors.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).bytes(".notifyx").compile_fds(files)?;
    Ok(())
}
