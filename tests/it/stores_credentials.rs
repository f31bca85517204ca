//! Who medusa is at a store where no `key_file` holds a key for it: what stores see of the keys, tokens and signatures that the
//! environment leads to, and of those that expire during a run. `MinIO` and Azurite judge them where they can; what gives
//! credentials is scripted.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::SignatureScheme;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::lab::medusa::{Medusa, Run};
use crate::lab::stores::ObjectServer as _;
use crate::lab::stores::azurite::Azurite;
use crate::lab::stores::gcs::FakeGcs;
use crate::lab::stores::identity::{Asked, Identity, OF_MACHINES, assumed, document, expiration, parameters};
use crate::lab::stores::minio::{Credentials, Minio};
use crate::lab::stores::recorder::{Action, Answer, Fault, Recorder, Request};
use crate::made;
use crate::support::assert_fails;

const HOUR: Duration = Duration::from_hours(1);

/// Medusa renews what AWS gives so long before it expires, and a moment. The moment passes during [`after_a_while`].
const SOON: Duration = Duration::from_secs(302);

/// The store answers some request of the run late.
fn after_a_while() -> Fault {
    Fault::nth(3, Action::Delay(Duration::from_secs(4)), |_| true)
}

/// Runs the command and has it say all that it can. None of these secrets is in it.
#[track_caller]
fn aloud(medusa: &Medusa, arguments: &[&str], secrets: &[&str]) -> Run {
    let run = medusa.run(&[arguments, &["-vvv"]].concat());
    for secret in secrets {
        assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "{secret} is shown: {run}");
    }
    run
}

/// What is asked, each thing once, in the order of its first time.
fn distinct<T: PartialEq>(things: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for thing in things {
        if !distinct.contains(&thing) {
            distinct.push(thing);
        }
    }
    distinct
}

/// All values of this header.
fn values(request: &Request, name: &str) -> Vec<String> {
    let is_it = |(found, _): &&(String, String)| found.eq_ignore_ascii_case(name);
    request.headers.iter().filter(is_it).map(|(_, value)| value.clone()).collect()
}

/// A bucket of `MinIO`, which checks every signature, and a configuration without `key_file`.
struct S3 {
    recorder: Recorder,
    medusa: Medusa,
}

impl S3 {
    fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        let minio = Minio::shared();
        let recorder = Recorder::start(&minio.endpoint, faults);
        let mut medusa = made::medusa();
        medusa.use_store(&minio.settings_at(&minio.new_bucket("identity"), recorder.port));
        medusa.unset("storage", "key_file");
        Self { recorder, medusa }
    }

    fn env(&mut self, variables: &[(&str, &str)]) {
        for (name, value) in variables {
            self.medusa.env(name, value);
        }
    }

    /// Writes a file beside the configuration.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.medusa.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Profiles, where the programs of AWS look for them.
    fn profiles(&mut self, config: &str, credentials: &str) {
        let (config, credentials) = (self.file("aws-config", config), self.file("aws-credentials", credentials));
        self.env(&[("AWS_CONFIG_FILE", config.as_str()), ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str())]);
    }

    /// Everything that medusa does with a bucket, as each of these in turn and as nobody else.
    #[track_caller]
    fn works_as(&self, who: &[&Credentials]) -> Run {
        let secrets: Vec<_> = who.iter().flat_map(|who| [Some(&who.secret_key), who.session_token.as_ref()]).collect();
        let secrets: Vec<_> = secrets.into_iter().flatten().map(String::as_str).collect();
        let run = aloud(&self.medusa, &["storage-check"], &secrets).expect_code(0);
        let seen = self.recorder.requests().iter().map(signed_by).collect::<Vec<_>>();
        let last = seen.last().cloned();
        let expected: Vec<_> = who.iter().map(|who| (who.access_key.clone(), who.session_token.clone())).collect();
        assert_eq!(distinct(seen), expected, "{run}");
        assert_eq!(last.as_ref(), expected.last(), "{run}");
        run
    }
}

/// Key and session token.
fn signed_by(request: &Request) -> (String, Option<String>) {
    let [authorization] = <[String; 1]>::try_from(values(request, "authorization")).unwrap();
    let named = authorization.strip_prefix("AWS4-HMAC-SHA256 Credential=").and_then(|rest| rest.split_once('/'));
    let (key, scope) = named.unwrap_or_else(|| panic!("{request}: {authorization}"));
    assert!(scope.contains("/us-east-1/s3/aws4_request,"), "{authorization}");
    let token = request.header("x-amz-security-token").map(str::to_owned);
    assert_eq!(token.is_some(), authorization.contains("x-amz-security-token"), "{authorization}");
    (key.to_owned(), token)
}

/// New temporary ones that may do everything.
fn temporary() -> Credentials {
    Minio::shared().restricted(&json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"},
    ]}))
}

const ROLE: &str = "arn:aws:iam::123456789012:role/backup";

/// What a token service was asked, which was asked once.
#[track_caller]
fn the_one(identity: &Identity) -> Asked {
    let [asked] = <[Asked; 1]>::try_from(identity.asked()).unwrap();
    asked
}

#[track_caller]
fn assert_parameters(asked: &Asked, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(asked.parameter(name).as_deref(), Some(*value), "{name} in {asked:?}");
    }
}

#[test]
fn aws_keys_of_the_environment() {
    for who in [Minio::shared().credentials(), temporary()] {
        let mut s3 = S3::new([]);
        s3.env(&[("AWS_ACCESS_KEY_ID", who.access_key.as_str()), ("AWS_SECRET_ACCESS_KEY", who.secret_key.as_str())]);
        if let Some(token) = &who.session_token {
            s3.env(&[("AWS_SESSION_TOKEN", token.as_str())]);
        }
        s3.works_as(&[&who]);
    }
}

#[test]
fn aws_role_of_a_profile_with_the_keys_of_another_one() {
    let who = temporary();
    let config = format!(
        "[profile backup]\nrole_arn = {ROLE}\nsource_profile = base\nrole_session_name = lab\nexternal_id = ours\n"
    );
    let base = Minio::shared().credentials();
    let Credentials { access_key, secret_key, .. } = &base;
    let keys = format!("[base]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n");
    let identity = Identity::token_service(&who);
    let mut s3 = S3::new([]);
    s3.profiles(&config, &keys);
    s3.env(&[("AWS_ENDPOINT_URL_STS", identity.url().as_str())]);
    s3.medusa.set("storage", "api_profile", "backup");
    s3.works_as(&[&who]);
    let asked = the_one(&identity);
    let form = [("Action", "AssumeRole"), ("RoleArn", ROLE), ("RoleSessionName", "lab"), ("ExternalId", "ours")];
    assert_parameters(&asked, &form);
    let signed = asked.header("authorization").unwrap();
    assert!(signed.contains(&format!("Credential={access_key}/")) && signed.contains("/us-east-1/sts/"), "{signed}");

    // MinIO's own service checks that signature. Its answer names no user, and the library of AWS refuses that.
    let judge = Recorder::start(&Minio::shared().endpoint, []);
    let answer = Action::AnswerAfter(assumed("AssumeRole", &who));
    let service = Recorder::start(&format!("127.0.0.1:{}", judge.port), [Fault::every(answer, |_| true)]);
    let mut s3 = S3::new([]);
    s3.profiles(&config, &keys);
    s3.env(&[("AWS_ENDPOINT_URL_STS", &format!("http://127.0.0.1:{}", service.port)), ("AWS_PROFILE", "backup")]);
    s3.works_as(&[&who]);
    assert_eq!(judge.requests().iter().map(|request| request.status).collect::<Vec<_>>(), [Some(200)]);
}

#[test]
fn aws_web_identity_of_the_environment() {
    let who = temporary();
    let identity = Identity::token_service(&who);
    let mut s3 = S3::new([]);
    let token = "header.s3cr3t+/=.signature";
    let file = s3.file("token", token);
    s3.env(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.as_str()),
        ("AWS_ROLE_ARN", ROLE),
        ("AWS_ROLE_SESSION_NAME", "lab"),
        ("AWS_ENDPOINT_URL_STS", identity.url().as_str()),
    ]);
    let run = s3.works_as(&[&who]);
    assert!(!run.stderr.contains("s3cr3t"), "{run}");
    let asked = the_one(&identity);
    let action = ("Action", "AssumeRoleWithWebIdentity");
    assert_parameters(&asked, &[action, ("RoleArn", ROLE), ("RoleSessionName", "lab"), ("WebIdentityToken", token)]);
    // Who has no keys yet signs nothing.
    assert_eq!(asked.header("authorization"), None, "{asked:?}");
}

#[test]
fn aws_program_of_a_profile() {
    let who = temporary();
    let mut s3 = S3::new([]);
    let given = json!({
        "Version": 1,
        "AccessKeyId": who.access_key,
        "SecretAccessKey": who.secret_key,
        "SessionToken": who.session_token,
        "Expiration": expiration(HOUR),
    });
    let program = s3.file("program", &format!("#!/bin/sh\necho \"$*\" >>\"$0.calls\"\ncat <<END\n{given}\nEND\n"));
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    s3.profiles(&format!("[default]\ncredential_process = {program} --for 'the lab'\n"), "");
    s3.works_as(&[&who]);
    assert_eq!(std::fs::read_to_string(format!("{program}.calls")).unwrap(), "--for the lab\n");
}

#[test]
fn aws_role_of_the_machine() {
    let who = temporary();
    let given = who.clone();
    let identity = Identity::machine(move || document(&given, HOUR));
    let mut s3 = S3::new([]);
    s3.env(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", identity.url().as_str())]);
    s3.works_as(&[&who]);
    let asked = identity.asked();
    let (role, credentials) = (format!("GET {OF_MACHINES}"), format!("GET {OF_MACHINES}role-of-the-node"));
    assert_eq!(distinct(asked.iter().map(Asked::what)), ["PUT /latest/api/token", &role, &credentials]);
    assert!(asked[0].header("x-aws-ec2-metadata-token-ttl-seconds").is_some(), "{asked:?}");
    for asked in &asked[1..] {
        assert_eq!(asked.header("x-aws-ec2-metadata-token"), Some("lab-session"), "{asked:?}");
    }
}

fn in_container(s3: &mut S3, identity: &Identity) {
    let at = format!("{}/v2/credentials/node", identity.url());
    s3.env(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", at.as_str())]);
}

#[test]
fn aws_role_of_the_container() {
    let token = "Basic s3cr3t-of-the-container";
    for by_file in [false, true] {
        let who = temporary();
        let given = who.clone();
        let identity = Identity::container(move || document(&given, HOUR));
        let mut s3 = S3::new([]);
        in_container(&mut s3, &identity);
        if by_file {
            let file = s3.file("token", token);
            s3.env(&[("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.as_str())]);
        } else {
            s3.env(&[("AWS_CONTAINER_AUTHORIZATION_TOKEN", token)]);
        }
        let run = s3.works_as(&[&who]);
        assert!(!run.stderr.contains("s3cr3t"), "{run}");
        assert_eq!(the_one(&identity).header("authorization"), Some(token));
    }
}

#[test]
fn aws_without_any_credentials() {
    let mut s3 = S3::new([]);
    s3.env(&[("AWS_EC2_METADATA_DISABLED", "true")]);
    let run = s3.medusa.run(&["list-backups"]);
    assert_fails(&run, 1, &["no AWS credentials were found"]);
    assert!(s3.recorder.requests().is_empty(), "{run}");
}

/// The first answer is the first one's, and all others are the second one's.
fn first_then<T: Clone>(first: T, then: T) -> impl Fn() -> T {
    let asked = AtomicUsize::new(0);
    move || if asked.fetch_add(1, Ordering::SeqCst) == 0 { first.clone() } else { then.clone() }
}

#[test]
fn aws_credentials_that_expire_are_renewed_during_the_run() {
    for is_machine in [true, false] {
        let (first, second) = (temporary(), temporary());
        let next = first_then((first.clone(), SOON), (second.clone(), HOUR));
        let give = move || {
            let (who, lasts) = next();
            document(&who, lasts)
        };
        let mut s3 = S3::new([after_a_while()]);
        let _identity = if is_machine {
            let identity = Identity::machine(give);
            s3.env(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", identity.url().as_str())]);
            identity
        } else {
            let identity = Identity::container(give);
            in_container(&mut s3, &identity);
            identity
        };
        s3.works_as(&[&first, &second]);
        s3.recorder.assert_fired();
    }
}

#[test]
fn aws_credentials_that_cannot_be_renewed_are_used_while_they_are_good() {
    let who = temporary();
    let next = first_then(Some(who.clone()), None);
    let identity =
        Identity::container(move || next().map_or_else(|| Answer::new(500, "{}"), |who| document(&who, SOON)));
    let mut s3 = S3::new([after_a_while()]);
    in_container(&mut s3, &identity);
    let run = s3.works_as(&[&who]);
    s3.recorder.assert_fired();
    assert!(identity.asked().len() > 1, "nobody tried to renew them: {run}");
    assert!(run.stderr.contains("the credentials could not be renewed, and the old ones are used"), "{run}");
}

/// A source that takes its time is asked in time: nothing is signed with what has expired.
#[test]
fn aws_credentials_of_a_slow_source_are_renewed_beside_the_requests() {
    let (first, second) = (temporary(), temporary());
    let mut s3 = S3::new([after_a_while(), Fault::nth(6, Action::Delay(Duration::from_secs(20)), |_| true)]);
    let given = |who: &Credentials, lasts: Duration| {
        let document = json!({
            "Version": 1,
            "AccessKeyId": who.access_key,
            "SecretAccessKey": who.secret_key,
            "SessionToken": who.session_token,
            "Expiration": expiration(lasts),
        });
        document.to_string()
    };
    let (soon, later) = (s3.file("soon", &given(&first, SOON)), s3.file("later", &given(&second, HOUR)));
    // Longer than a request waits for it.
    let text =
        format!("#!/bin/sh\nif mkdir \"$0.called\"; then cat {soon}; else sleep 12; cat {later}; fi 2>/dev/null\n");
    let program = s3.file("program", &text);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    s3.profiles(&format!("[default]\ncredential_process = {program}\n"), "");
    let run = s3.works_as(&[&first, &second]);
    assert!(!run.stderr.contains("could not be renewed"), "{run}");
    s3.recorder.assert_fired();
}

/// What every request to a store without signatures of its own says of who sends it.
fn authorizations(recorder: &Recorder) -> Vec<Vec<String>> {
    distinct(recorder.requests().iter().map(|request| values(request, "authorization")))
}

/// A bucket of fake-gcs-server, which lets everybody in, and a configuration without `key_file`.
fn google(faults: impl IntoIterator<Item = Fault>) -> (Recorder, Medusa) {
    let gcs = FakeGcs::shared();
    let recorder = Recorder::start(&gcs.endpoint, faults);
    let mut medusa = made::medusa();
    medusa.use_store(&gcs.settings_at(&gcs.new_bucket("identity"), recorder.port));
    medusa.unset("storage", "key_file");
    (recorder, medusa)
}

#[test]
fn google_identity_of_the_machine_and_its_renewal() {
    let next = first_then(("ya29.s3cr3t-first", 242), ("ya29.s3cr3t-second", 3600));
    let identity = Identity::start(move |_| {
        // Google's are renewed four minutes before they expire.
        let (token, seconds) = next();
        let token = json!({ "access_token": token, "expires_in": seconds, "token_type": "Bearer" });
        Answer::new(200, &token.to_string()).header("Content-Type", "application/json")
    });
    let (recorder, mut medusa) = google([after_a_while()]);
    medusa.env("GCE_METADATA_HOST", &format!("127.0.0.1:{}", identity.port));
    medusa.env("GOOGLE_BASE_URL", &format!("http://127.0.0.1:{}", recorder.port));
    aloud(&medusa, &["storage-check"], &["s3cr3t"]).expect_code(0);
    recorder.assert_fired();
    let bearer = |token: &str| vec![format!("Bearer {token}")];
    assert_eq!(authorizations(&recorder), [bearer("ya29.s3cr3t-first"), bearer("ya29.s3cr3t-second")]);
    for asked in identity.asked() {
        assert_eq!(asked.what(), "GET /computeMetadata/v1/instance/service-accounts/default/token");
        assert_eq!(asked.header("metadata-flavor"), Some("Google"), "{asked:?}");
    }
}

/// The key of a service account signs its own tokens: nobody is asked for one.
#[test]
fn google_key_of_a_service_account() {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let pem = key.serialize_pem();
    let email = "node@lab.iam.gserviceaccount.com";
    for by_environment in [false, true] {
        let identity = Identity::start(|_| Answer::new(500, ""));
        let (recorder, mut medusa) = google([]);
        let store = format!("http://127.0.0.1:{}", recorder.port);
        let account = json!({
            "type": "service_account",
            "client_email": email,
            "private_key": pem,
            "private_key_id": "lab-key",
            "token_uri": identity.url(),
            "gcs_base_url": store,
        });
        let file = medusa.folder.path().join("account.json").display().to_string();
        std::fs::write(&file, account.to_string()).unwrap();
        if by_environment {
            medusa.env("GOOGLE_APPLICATION_CREDENTIALS", &file);
            medusa.env("GOOGLE_BASE_URL", &store);
        } else {
            medusa.set("storage", "key_file", &file);
        }
        let begin = Utc::now().timestamp();
        let run = aloud(&medusa, &["storage-check"], &[pem.lines().nth(1).unwrap(), "eyJ"]).expect_code(0);
        let seen = authorizations(&recorder).concat();
        let [authorization] = seen.as_slice() else { panic!("{seen:?} {run}") };
        let token = authorization.strip_prefix("Bearer ").unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let decoded = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
        let json = |part: &str| serde_json::from_slice::<Value>(&decoded(part)).unwrap();
        assert_eq!(json(header), json!({ "typ": "JWT", "alg": "RS256", "kid": "lab-key" }));
        let claims = json(claims);
        let issued = claims["iat"].as_i64().unwrap();
        let scope = "https://www.googleapis.com/auth/cloud-platform";
        let expected = json!({ "iss": email, "sub": email, "scope": scope, "iat": issued, "exp": issued + 3600 });
        assert_eq!(claims, expected);
        assert!((begin..=Utc::now().timestamp()).contains(&issued), "{claims}");
        let known = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        let algorithm = known.mapping.iter().find(|(scheme, _)| *scheme == SignatureScheme::RSA_PKCS1_SHA256);
        let verified =
            algorithm.unwrap().1[0].verify_signature(key.public_key_raw(), signed.as_bytes(), &decoded(signature));
        verified.unwrap();
        assert!(identity.asked().is_empty(), "{:?}", identity.asked());
    }
}

const ACCOUNT: &str = "devstoreaccount1";

/// What stands for Azure: it holds nothing and takes everything. Before its answers come those of the faults.
fn azure(faults: impl IntoIterator<Item = Fault>) -> (Recorder, Medusa) {
    let nothing =
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs /><NextMarker /></EnumerationResults>";
    let lists = |request: &Request| parameters(&request.query).contains(&("comp".to_owned(), "list".to_owned()));
    let written =
        Answer::new(201, "").header("ETag", "\"0x1\"").header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT");
    // It is not asked: there is nobody.
    let recorder = Recorder::start("127.0.0.1:9", faults);
    recorder.add(Fault::every(Action::Answer(Answer::new(200, nothing)), lists));
    recorder.add(Fault::every(Action::Answer(written), |request| request.method == "PUT"));
    recorder.add(Fault::every(Action::Answer(Answer::new(404, "")), |_| true));
    let mut medusa = made::medusa();
    medusa.use_store(&[
        ("storage_provider", "azure_blobs".to_owned()),
        ("bucket_name", "backups".to_owned()),
        ("host", "localhost".to_owned()),
        ("port", recorder.port.to_string()),
        ("secure", "False".to_owned()),
    ]);
    medusa.env("AZURE_STORAGE_ACCOUNT", ACCOUNT);
    (recorder, medusa)
}

/// All kinds of requests but large ones. What stands for Azure disappoints the check.
const CHECK: [&str; 3] = ["storage-check", "--role", "janitor"];

/// What Azure's services for tokens were asked, and that their token was shown to the store in every request.
#[track_caller]
fn azure_knows_us_by(environment: impl FnOnce(&Identity) -> Vec<(&'static str, String)>) -> Asked {
    let token = "s3cr3t-of-azure";
    let identity = Identity::start(move |_| {
        let expires = Utc::now().timestamp() + 3600;
        // A machine is told when, and others after how long.
        let given = json!({ "access_token": token, "expires_on": expires.to_string(), "expires_in": 3600 });
        Answer::new(200, &given.to_string()).header("Content-Type", "application/json")
    });
    let (recorder, mut medusa) = azure([]);
    for (name, value) in environment(&identity) {
        medusa.env(name, &value);
    }
    let run = aloud(&medusa, &CHECK, &["s3cr3t"]);
    assert_eq!(authorizations(&recorder), [[format!("Bearer {token}")]], "{run}");
    let methods = distinct(recorder.requests().into_iter().map(|request| request.method));
    assert!(["GET", "PUT"].iter().all(|method| methods.iter().any(|found| found == method)), "{methods:?} {run}");
    the_one(&identity)
}

#[test]
fn azure_managed_identity() {
    for client in [None, Some("client-7")] {
        let asked = azure_knows_us_by(|identity| {
            let mut environment = vec![
                ("IDENTITY_ENDPOINT", format!("{}/msi/token", identity.url())),
                ("IDENTITY_HEADER", "s3cr3t-of-the-machine".to_owned()),
            ];
            environment.extend(client.map(|client| ("AZURE_CLIENT_ID", client.to_owned())));
            environment
        });
        assert_eq!(asked.what(), "GET /msi/token");
        assert_parameters(&asked, &[("resource", "https://storage.azure.com"), ("api-version", "2019-08-01")]);
        assert_eq!(asked.parameter("client_id").as_deref(), client);
        assert_eq!(asked.header("metadata"), Some("true"));
        assert_eq!(asked.header("x-identity-header"), Some("s3cr3t-of-the-machine"));
    }
}

#[test]
fn azure_workload_identity_and_client_secret() {
    let folder = crate::lab::scratch("identity");
    let file = folder.path().join("token");
    std::fs::write(&file, "federated.s3cr3t.token").unwrap();
    let of = |identity: &Identity, more: (&'static str, String)| {
        vec![
            ("AZURE_AUTHORITY_HOST", identity.url()),
            ("AZURE_TENANT_ID", "tenant-7".to_owned()),
            ("AZURE_CLIENT_ID", "client-7".to_owned()),
            more,
        ]
    };
    let federated = ("AZURE_FEDERATED_TOKEN_FILE", file.display().to_string());
    let workload = azure_knows_us_by(|identity| of(identity, federated));
    let secret = "s3cr3t~of+the/client";
    let principal = azure_knows_us_by(|identity| of(identity, ("AZURE_CLIENT_SECRET", secret.to_owned())));
    for asked in [&workload, &principal] {
        assert_eq!(asked.what(), "POST /tenant-7/oauth2/v2.0/token");
        let scope = ("scope", "https://storage.azure.com/.default");
        assert_parameters(asked, &[("client_id", "client-7"), ("grant_type", "client_credentials"), scope]);
    }
    let kind = ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    assert_parameters(&workload, &[("client_assertion", "federated.s3cr3t.token"), kind]);
    assert_parameters(&principal, &[("client_secret", secret)]);
}

#[test]
fn p7_azure_shared_access_signature_is_used_and_never_shown() {
    let sas = "?sv=2022-11-02&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&sig=s3cr3t%2Bsi%2Fgnature%3D";
    let refused = || Action::Answer(Answer::xml(403, "AuthenticationFailed"));
    for faults in [
        vec![],
        vec![Fault::every(refused(), |_| true)],
        vec![Fault::first(2, Action::Reset, |_| true), Fault::every(refused(), |_| true)],
    ] {
        let (recorder, mut medusa) = azure(faults);
        medusa.env("AZURE_STORAGE_SAS_TOKEN", sas);
        let run = aloud(&medusa, &CHECK, &["s3cr3t"]);
        let requests = recorder.requests();
        assert!(requests.len() > 2, "{requests:?} {run}");
        for request in &requests {
            let pairs = parameters(&request.query);
            for (name, value) in parameters(&sas[1..]) {
                assert_eq!(pairs.iter().filter(|pair| pair.0 == name).count(), 1, "{name}: {request}");
                assert!(pairs.contains(&(name, value)), "{request}");
            }
            assert_eq!(values(request, "authorization"), [""; 0], "{request}");
        }
    }
}

/// HMAC-SHA256 with a key of 64 bytes or less.
fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let padded = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, of_key)| *byte ^= of_key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}

/// A signature for a container, as Azure's tools make it.
fn container_sas(key: &str, container: &str) -> String {
    let (version, permissions, expires) = ("2019-02-02", "racwdl", "2099-01-01T00:00:00Z");
    let text = format!("{permissions}\n\n{expires}\n/blob/{ACCOUNT}/{container}\n\n\nhttps\n{version}\nc\n\n\n\n\n\n");
    let mut signature = String::new();
    for byte in BASE64_STANDARD.encode(hmac(&BASE64_STANDARD.decode(key).unwrap(), &text)).bytes() {
        write!(signature, "%{byte:02X}").unwrap();
    }
    format!("sv={version}&sr=c&sp={permissions}&se=2099-01-01T00%3A00%3A00Z&spr=https&sig={signature}")
}

/// Azurite judges what the environment holds.
#[test]
fn azure_key_and_shared_access_signature_do_everything() {
    let azurite = Azurite::shared();
    let account: Value = serde_json::from_slice(&std::fs::read(azurite.key_file()).unwrap()).unwrap();
    let key = account["key"].as_str().unwrap();
    for name in ["AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"] {
        let bucket = azurite.new_bucket("identity");
        let value = if name.ends_with("_KEY") { key.to_owned() } else { container_sas(key, &bucket) };
        let mut medusa = made::medusa();
        medusa.use_store(&azurite.settings(&bucket));
        medusa.unset("storage", "key_file");
        medusa.env("AZURE_STORAGE_ACCOUNT", ACCOUNT);
        medusa.env(name, &value);
        let secret = value.rsplit("sig=").next().unwrap();
        aloud(&medusa, &["storage-check"], &[secret]).expect_code(0);
        assert!(azurite.objects(&bucket).is_empty(), "nothing stays");
    }
}
