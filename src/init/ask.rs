//! The questions of `medusa init`, on a terminal.

use std::io::{BufRead, Write};

use super::objection;
use super::template::Setting;
use crate::error::Failure;
use crate::storage::provider;

/// Asks a person.
#[derive(Debug)]
pub struct Questions<R, W> {
    pub input: R,
    pub output: W,
}

impl<R: BufRead, W: Write> Questions<R, W> {
    /// Asks for what belongs to `[storage]` and was not given, and for cassandra.yaml where it was not found.
    pub fn complete(&mut self, settings: &mut Vec<Setting>, needs_yaml: bool) -> Result<(), Failure> {
        let known = "local, s3, s3_compatible, google_storage, azure_blobs";
        let provider = loop {
            let question = format!("Where do backups go ({known})");
            let provider = self.need(settings, "storage", "storage_provider", &question, Some("local"))?;
            if provider::is_known(&provider) {
                break provider;
            }
            self.say(&format!("{provider} is not known\n"))?;
            settings.retain(|setting| setting.key != "storage_provider");
        };
        if provider == "local" {
            self.need(
                settings,
                "storage",
                "base_path",
                "Folder that holds the buckets, as a mounted file system",
                None,
            )?;
            self.need(
                settings,
                "storage",
                "bucket_name",
                "Folder below it for these backups",
                Some("cassandra_backups"),
            )?;
        } else {
            self.need(settings, "storage", "bucket_name", "Bucket or container, which must exist", None)?;
            self.may(settings, "storage", "key_file", "File with the credentials; empty: those of the machine")?;
            if provider == "s3" {
                self.may(settings, "storage", "region", "Region; empty: us-east-1")?;
            } else if provider.starts_with("s3_compatible") || provider == "s3_rgw" {
                self.need(settings, "storage", "host", "Host of the store, without https://", None)?;
            }
        }
        self.may(
            settings,
            "storage",
            "prefix",
            "Folder of this cluster, for several clusters in one bucket; empty: none",
        )?;
        if needs_yaml {
            self.may(
                settings,
                "cassandra",
                "config_file",
                "Path of cassandra.yaml; empty: no Cassandra on this machine",
            )?;
        }
        Ok(())
    }

    fn need(
        &mut self,
        settings: &mut Vec<Setting>,
        section: &str,
        key: &str,
        question: &str,
        default: Option<&str>,
    ) -> Result<String, Failure> {
        if let Some(given) = settings.iter().find(|setting| setting.section == section && setting.key == key) {
            return Ok(given.value.clone());
        }
        let shown = default.map(|default| format!(" [{default}]")).unwrap_or_default();
        loop {
            let answer = self.ask(&format!("{question}{shown}: "))?;
            let answer = if answer.is_empty() { default.unwrap_or_default().to_owned() } else { answer };
            if !answer.is_empty() && self.accept(settings, Setting::new(section, key, answer.as_str()))? {
                return Ok(answer);
            }
        }
    }

    fn may(&mut self, settings: &mut Vec<Setting>, section: &str, key: &str, question: &str) -> Result<(), Failure> {
        if settings.iter().any(|setting| setting.section == section && setting.key == key) {
            return Ok(());
        }
        loop {
            let answer = self.ask(&format!("{question}: "))?;
            if answer.is_empty() || self.accept(settings, Setting::new(section, key, answer))? {
                return Ok(());
            }
        }
    }

    /// Takes an answer, or says what is wrong with it. Whether a provider exists is asked elsewhere.
    fn accept(&mut self, settings: &mut Vec<Setting>, setting: Setting) -> Result<bool, Failure> {
        let objection = if setting.key == "storage_provider" { None } else { objection(&setting) };
        if let Some(objection) = objection {
            self.say(&format!("{objection}\n"))?;
            return Ok(false);
        }
        settings.push(setting);
        Ok(true)
    }

    fn ask(&mut self, question: &str) -> Result<String, Failure> {
        self.say(question)?;
        let mut line = String::new();
        let read = self.input.read_line(&mut line);
        match read {
            Ok(0) => {
                Err(Failure::usage("nobody answers; nothing was written")
                    .hint("the options of medusa init answer, too"))
            }
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(Failure::failed("the answer could not be read").cause(error)),
        }
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        let said = self.output.write_all(text.as_bytes()).and_then(|()| self.output.flush());
        said.map_err(|error| Failure::failed("the question could not be asked").cause(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(given: &[Setting], needs_yaml: bool, answers: &str) -> Result<(Vec<Setting>, String), Failure> {
        let mut settings = given.to_vec();
        let mut questions = Questions { input: answers.as_bytes(), output: Vec::new() };
        questions.complete(&mut settings, needs_yaml)?;
        Ok((settings, String::from_utf8(questions.output).unwrap()))
    }

    fn shown(settings: &[Setting]) -> Vec<String> {
        settings.iter().map(|setting| format!("{}={}", setting.key, setting.value)).collect()
    }

    #[test]
    fn a_folder_needs_its_path() {
        let (settings, asked) = answered(&[], false, "\n\n /mnt/b \n\n\n").unwrap();
        assert_eq!(shown(&settings), ["storage_provider=local", "base_path=/mnt/b", "bucket_name=cassandra_backups"]);
        assert_eq!(asked.matches("mounted file system").count(), 2, "an empty path is no answer");
    }

    #[test]
    fn a_bad_answer_is_asked_again_and_the_others_stay() {
        let (settings, asked) = answered(&[], false, "\nbackups\n/mnt/b\na/b\nb\np/q\np1\n").unwrap();
        assert_eq!(shown(&settings), ["storage_provider=local", "base_path=/mnt/b", "bucket_name=b", "prefix=p1"]);
        assert!(asked.contains("must begin with /") && asked.contains("must not contain a slash"), "{asked}");
        assert!(!asked.contains("from medusa.ini"), "{asked}");
    }

    #[test]
    fn what_was_given_is_not_asked() {
        let given = [Setting::new("storage", "storage_provider", "s3"), Setting::new("storage", "bucket_name", "b")];
        let (settings, asked) = answered(&given, true, "/keys\neu-west-1\np1\n/etc/c.yaml\n").unwrap();
        let expected = [
            "storage_provider=s3",
            "bucket_name=b",
            "key_file=/keys",
            "region=eu-west-1",
            "prefix=p1",
            "config_file=/etc/c.yaml",
        ];
        assert_eq!(shown(&settings), expected);
        assert!(!asked.contains("Where do backups go"));
    }

    #[test]
    fn an_unknown_provider_is_asked_again_and_an_end_ends_it() {
        let (settings, asked) = answered(&[], false, "ftp\ns3_compatible\nb\n\nminio.example.net\n\n").unwrap();
        assert!(asked.contains("ftp is not known"));
        assert_eq!(shown(&settings), ["storage_provider=s3_compatible", "bucket_name=b", "host=minio.example.net"]);
        assert!(answered(&[], false, "local\n").unwrap_err().message.contains("nobody answers"));
    }
}
