//! Logging in and out.

use actix_web::{HttpRequest, HttpResponse, http::header, web::Query};
use askama::Template;

use super::{
    BASE, State,
    cookies::Cookie,
    error::ConsoleError,
    form::Form,
    frame::{self, Done},
    visit::{Arrival, Visit},
};
use crate::auth::{LoginError, SessionToken};

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    token: &'a str,
    name: &'a str,
    error: Option<String>,
    notice: Option<&'static str>,
}

pub(super) async fn show(request: HttpRequest, arrival: Arrival, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    let known = Cookie::Login.token(&request, arrival.secure);
    let token = known.map_or_else(SessionToken::generate, Ok).map_err(|_| ConsoleError::Broken)?;
    let form_token = token.form_token();
    let page = LoginPage { token: form_token.as_str(), name: "", error: None, notice: frame::notice(done.done.as_deref()) };
    let mut response = frame::page(&page)?;
    set(&mut response, &Cookie::Login.set(&token, arrival.secure))?;
    Ok(response)
}

pub(super) async fn log_in(state: State, request: HttpRequest, arrival: Arrival, form: Form) -> Result<HttpResponse, ConsoleError> {
    let (name, password) = (form.text("name").unwrap_or_default(), form.exact("password").unwrap_or_default());
    match state.services.operators.log_in(name, password, arrival.address).await {
        Ok((token, _)) => {
            let mut response = frame::redirect(BASE);
            set(&mut response, &Cookie::Session.set(&token, arrival.secure))?;
            set(&mut response, &Cookie::Login.clear(arrival.secure))?;
            Ok(response)
        }
        Err(error) => refused(&request, arrival, name, error),
    }
}

/// The form again, with what was wrong.
fn refused(request: &HttpRequest, arrival: Arrival, name: &str, error: LoginError) -> Result<HttpResponse, ConsoleError> {
    let token = Cookie::Login.token(request, arrival.secure).ok_or(ConsoleError::ForeignForm)?.form_token();
    let error = ConsoleError::Login(error);
    let wait = error.retry_after().map(|wait| wait.as_secs() + 1);
    let told = match wait {
        Some(seconds) => format!("Too many tries have failed. Try again in {seconds} s."),
        None => "Name or password is wrong.".to_owned(),
    };
    let told = if matches!(error, ConsoleError::Login(LoginError::Hash(_) | LoginError::Unavailable)) { error.to_string() } else { told };
    let status = actix_web::ResponseError::status_code(&error);
    let page = LoginPage { token: token.as_str(), name, error: Some(told), notice: None };
    let mut response = frame::page_with(status, &page)?;
    if let Some(seconds) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    Ok(response)
}

pub(super) async fn log_out(state: State, visit: Visit, arrival: Arrival, _form: Form) -> Result<HttpResponse, ConsoleError> {
    state.services.operators.log_out(&visit.open).await?;
    let mut response = frame::done("login", "bye");
    set(&mut response, &Cookie::Session.clear(arrival.secure))?;
    // Of what the browser has kept of these pages nothing stays.
    response.headers_mut().insert(header::HeaderName::from_static("clear-site-data"), header::HeaderValue::from_static("\"cache\""));
    Ok(response)
}

fn set(response: &mut HttpResponse, cookie: &str) -> Result<(), ConsoleError> {
    let value = header::HeaderValue::from_str(cookie).map_err(|_| ConsoleError::Broken)?;
    response.headers_mut().append(header::SET_COOKIE, value);
    Ok(())
}
