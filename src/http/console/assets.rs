//! The console's style sheet, script and sign. They are in the program: a console without a network looks the same.

use actix_web::{
    HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    web::Path,
};

use super::error::ConsoleError;

const ASSETS: [(&str, &str, &str); 3] = [
    ("console.css", "text/css; charset=utf-8", include_str!("assets/console.css")),
    ("console.js", "text/javascript; charset=utf-8", include_str!("assets/console.js")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

pub(super) async fn asset(name: Path<String>) -> Result<HttpResponse, ConsoleError> {
    let found = ASSETS.iter().find(|(known, _, _)| *known == name.as_str());
    let (_, kind, text) = found.ok_or(ConsoleError::NotFound)?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, *kind)).insert_header((CACHE_CONTROL, "no-cache")).body(*text))
}
