//! Writes the seed corpus under `seeds/`; the same bytes every time.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for target in fuzz::seeds::all() {
        let folder = root.join(target.name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        for (file, seed) in target.seeds {
            std::fs::write(folder.join(file), seed)?;
        }
    }
    Ok(())
}
