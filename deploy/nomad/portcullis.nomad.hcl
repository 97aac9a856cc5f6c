# A gateway on every client of a Nomad cluster: nomad job run portcullis.nomad.hcl
#
# It expects the program at /usr/local/bin/portcullis, and certificates with their keys in /etc/portcullis/certificates
# (NAME.pem and NAME.key). Routes stand in the template below; each new one is a new version of the job.
job "portcullis" {
  type = "system"

  group "gateway" {
    network {
      mode = "host"
      port "tls" {
        static = 8443
      }
    }

    task "gateway" {
      driver = "raw_exec"

      config {
        command = "/usr/local/bin/portcullis"
        args    = ["serve", "--config", "${NOMAD_TASK_DIR}/portcullis.toml"]
      }

      # SIGTERM drains. 5 s longer than drain_timeout below, or more; a client allows 30 s unless its max_kill_timeout says more.
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      template {
        destination = "local/portcullis.toml"
        data        = <<EOF
listen = ["[::]:8443"]
admin  = "127.0.0.1:9443"

[[certificates]]
directory = "/etc/portcullis/certificates"

[routes.vm]
host     = "ssh.vm.example.com"
upstream = "10.0.0.5:22"

[limits]
drain_timeout = "20s"
EOF
      }

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
