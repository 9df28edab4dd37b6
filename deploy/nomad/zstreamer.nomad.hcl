# A broker and workers as one Nomad job. Clients resolve zs-clients.service.consul, which Consul's DNS
# answers with every broker: tcp+dns://zs-clients.service.consul:7787.
#
#   nomad job run -var target=bert_model:ManagedBertModel zstreamer.nomad.hcl

variable "image" {
  default = "zstreamer:0.1.0"
}

variable "target" {
  description = "module:Class, importable in the image"
}

variable "workers" {
  default = 2
}

job "zstreamer" {
  type = "service"

  group "broker" {
    count = 2
    spread { attribute = "${node.unique.id}" }

    network {
      # Fixed ports: DNS gives addresses, not ports.
      port "clients" { static = 7787 }
      port "workers" { static = 7788 }
      port "http" { static = 7789 }
    }

    service {
      name = "zs-clients"
      port = "clients"
      check {
        type     = "http"
        port     = "http"
        path     = "/healthz"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "broker" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "45s" # more than --drain-grace
      config {
        image   = var.image
        command = "zstreamer"
        args    = ["broker", "--host", "0.0.0.0", "--insecure", "--drain-grace", "30"]
        ports   = ["clients", "workers", "http"]
      }
      resources {
        cpu    = 1000
        memory = 2048
      }
    }
  }

  group "worker" {
    count = var.workers
    update {
      max_parallel = 1
      canary       = 1
      auto_promote = true
    }

    network {
      port "http" {}
    }

    service {
      name = "zs-worker"
      port = "http"
      check {
        type     = "http"
        path     = "/readyz" # its model is warm
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "worker" {
      driver       = "docker"
      kill_signal  = "SIGTERM"
      kill_timeout = "45s"
      config {
        image   = var.image
        command = "zstreamer"
        args = [
          "worker", var.target, "--broker", "tcp+dns://zs-clients.service.consul:7788",
          "--metrics-host", "0.0.0.0", "--metrics-port", "${NOMAD_PORT_http}", "--drain-grace", "30",
        ]
        ports = ["http"]
      }
      resources {
        cpu    = 2000
        memory = 4096
      }
    }
  }
}
