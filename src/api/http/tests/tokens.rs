//! The token: where it goes, where it does not, and how another takes its place.

use std::fs;

use super::*;
use crate::config::Login;

/// The value of the token's header in a question.
fn sent(head: &str) -> Option<String> {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let token = headers.find(|(name, _)| name.eq_ignore_ascii_case("x-consul-token"));
    token.map(|(_, value)| value.to_owned())
}

#[tokio::test]
async fn a_refused_token_is_read_again_and_the_question_asked_once_more() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "first\n").unwrap();
    let refusal = || reply("403 Forbidden", "", "ACL not found");
    let mut server = Server::start([good(1, "1")]).await;
    let consul = with_token(&server, Token::File(file.clone()));
    let client = Client::new(&consul).unwrap();
    let first = ask(&client).await.unwrap().token;
    assert_eq!(sent(&server.asked().await).unwrap(), "first");
    assert!(!first.is_anonymous());

    // The same token again: there is nothing else to try.
    server.then(refusal());
    assert!(ask(&client).await.unwrap_err().is_denied());
    assert_eq!(sent(&server.asked().await).unwrap(), "first");
    assert_eq!(server.unseen(), 0);

    // Written in place, with the times of the old one: only the refusal tells.
    let times = fs::metadata(&file).unwrap();
    fs::write(&file, "other\n").unwrap();
    let opened = fs::File::options().write(true).open(&file).unwrap();
    opened.set_modified(times.modified().unwrap()).unwrap();
    server.then(refusal());
    server.then(good(2, "2"));
    let other = ask(&client).await.unwrap();
    assert_eq!(other.value, 2);
    assert_ne!(other.token, first);
    assert_eq!(sent(&server.asked().await).unwrap(), "first");
    assert_eq!(sent(&server.asked().await).unwrap(), "other");

    // Refused both: told so, and not asked a third time.
    fs::write(&file, "third\n").unwrap();
    server.then(refusal());
    server.then(refusal());
    assert!(ask(&client).await.unwrap_err().is_denied());
}

#[tokio::test]
async fn a_token_is_read_again_when_its_file_changes_and_kept_while_there_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "first").unwrap();
    let answers = std::iter::repeat_with(|| good(1, "[]")).take(5);
    let mut server = Server::start(answers).await;
    let client = Client::new(&with_token(&server, Token::File(file.clone()))).unwrap();
    let first = ask(&client).await.unwrap().token;
    for nothing in ["", "two words", "caf\u{e9}"] {
        fs::write(&file, nothing).unwrap();
        assert_eq!(ask(&client).await.unwrap().token, first, "{nothing:?}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(ask(&client).await.unwrap().token, first);
    let beside = directory.path().join("new");
    fs::write(&beside, "  second \n").unwrap();
    fs::rename(&beside, &file).unwrap();
    server.then(good(1, "[]"));
    assert_ne!(ask(&client).await.unwrap().token, first);
    for _ in 0..5 {
        assert_eq!(sent(&server.asked().await).unwrap(), "first");
    }
    assert_eq!(sent(&server.asked().await).unwrap(), "second");
}

#[tokio::test]
async fn equal_tokens_have_equal_ids_in_every_client_and_a_missing_one_is_nobody() {
    let server = Server::start([]).await;
    let id = |token: Option<Token>| {
        let consul = Consul {
            token,
            ..server.consul()
        };
        let client = Client::new(&consul).unwrap();
        async move {
            client
                .0
                .tokens
                .current(&client.0)
                .await
                .unwrap()
                .map(|held| held.id)
        }
    };
    let a = id(Some(secret("a"))).await;
    assert_eq!(a, id(Some(secret("a"))).await);
    assert_ne!(a, id(Some(secret("b"))).await);
    assert_eq!(id(None).await, None);
    assert!(TokenId::default().is_anonymous());
}

#[tokio::test]
async fn a_token_that_is_none_or_not_there_is_an_error_at_the_start_that_does_not_show_it() {
    let server = Server::start([]).await;
    let error = |token| {
        Client::new(&with_token(&server, token))
            .unwrap_err()
            .to_string()
    };
    for bad in ["", "to ken", "tok\nen", "t\u{f6}ken"] {
        let error = error(secret(bad));
        assert!(error.starts_with("the token holds"), "{error}");
        assert!(bad.is_empty() || !error.contains(bad), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    assert!(
        error(Token::File(file.clone()))
            .ends_with("token: cannot be read: No such file or directory (os error 2)")
    );
    fs::write(&file, " \n").unwrap();
    assert!(error(Token::File(file.clone())).ends_with("token: holds no token"));
    fs::write(&file, "x".repeat(5000)).unwrap();
    assert!(error(Token::File(file)).ends_with("token: is larger than 4096 bytes"));
    assert!(error(Token::File(directory.path().into())).ends_with("is no regular file"));
}

#[tokio::test]
async fn nor_is_a_password_of_basic_authentication_in_any_form() {
    let echo = reply(
        "500 Oops",
        "",
        "Authorization: Basic Ym9iOmh1bnRlcjI=; bob has hunter2",
    );
    let server = Server::start([echo]).await;
    let consul = Consul {
        basic_auth: Some(("bob".to_owned(), Secret::new("hunter2".to_owned()))),
        ..with_token(&server, secret("a-token"))
    };
    let error = ask(&Client::new(&consul).unwrap().apart())
        .await
        .unwrap_err();
    let told = "Authorization: Basic MASKED; bob has MASKED";
    assert!(error.to_string().contains(told), "{error}");
}

#[tokio::test]
async fn no_token_is_shown_where_something_is_told() {
    let echo = reply(
        "400 Bad Request",
        "",
        "bad header X-Consul-Token: s3cr3t-t0ken!",
    );
    let server = Server::start([echo]).await;
    let consul = with_token(&server, secret("s3cr3t-t0ken"));
    let client = Client::new(&consul).unwrap();
    let error = ask(&client).await.unwrap_err();
    assert!(
        error.to_string().contains("X-Consul-Token: MASKED!"),
        "{error}"
    );
    let held = client.0.tokens.current(&client.0).await.unwrap().unwrap();
    let shown = format!(
        "{consul:?} {client:?} {error:?} {held:?} {:?}",
        client.0.tokens
    );
    assert!(!shown.contains("s3cr3t"), "{shown}");
}

#[tokio::test]
async fn a_token_of_a_login_that_is_not_known_is_told_of_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("jwt");
    fs::write(&token_file, "a.jwt.here").unwrap();
    let granted = reply("200 OK", "", r#"{"SecretID": "s3cr3t"}"#);
    let unknown = reply("403 Forbidden", "", "ACL not found");
    let server = Server::start([granted, unknown]).await;
    let consul = Consul {
        login: Some(Login {
            auth_method: "jwt".to_owned(),
            token_file,
            meta: Default::default(),
        }),
        ..server.consul()
    };
    let client = Client::new(&consul).unwrap();
    let error = ask(&client).await.unwrap_err().to_string();
    assert!(error.contains("ACL not found"), "{error}");
    let error = ask(&client).await.unwrap_err().to_string();
    let told = "the token of the last one is not known";
    assert!(error.ends_with(told), "{error}");
}
