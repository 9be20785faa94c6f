//! The files of the page, as `build.rs` made them. All are open to whoever reaches the address: they hold no data.

/// Whether the page was built in. A build without npm has a plain text in its place, which says how to get it.
pub fn is_built() -> bool {
    BUILT == "yes"
}

const BUILT: &str = env!("MESHD_PAGE_BUILT");

/// A file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asset {
    pub(crate) path: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) body: &'static [u8],
}

/// All files.
pub(crate) const ALL: [Asset; 4] = [
    Asset {
        path: "/",
        kind: "text/html; charset=utf-8",
        body: include_bytes!(concat!(env!("OUT_DIR"), "/page/index.html")),
    },
    Asset {
        path: "/page.js",
        kind: "text/javascript; charset=utf-8",
        body: include_bytes!(concat!(env!("OUT_DIR"), "/page/page.js")),
    },
    Asset {
        path: "/page.css",
        kind: "text/css; charset=utf-8",
        body: include_bytes!(concat!(env!("OUT_DIR"), "/page/page.css")),
    },
    Asset {
        path: "/notices.txt",
        kind: "text/plain; charset=utf-8",
        body: include_bytes!(concat!(env!("OUT_DIR"), "/page/notices.txt")),
    },
];

/// Stands for the content of all files together, as an entity tag with its quotation marks.
pub(crate) const TAG: &str = concat!("\"", env!("MESHD_PAGE_TAG"), "\"");
