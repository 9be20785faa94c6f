variable "nodes" {
  description = "The nodes by name, one DNS label each; `advertise` as in node.toml, `segments` those to ask for."
  type = map(object({
    advertise = optional(list(string), [])
    segments  = optional(list(string), [])
  }))

  validation {
    condition     = alltrue([for name in keys(var.nodes) : can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", name))])
    error_message = "A node's name is one DNS label: 1 to 63 of a-z, 0-9 and -, and no - at either end."
  }
}

variable "tokens" {
  description = "One token for each node, by its name, from `meshctl token create --name NAME` at the controller; `./tokens NAME…` writes them all."
  type        = map(string)
  sensitive   = true

  validation {
    condition     = alltrue([for token in values(var.tokens) : can(regex("^[^[:space:]]+$", token))])
    error_message = "A token is one word, as `meshctl token create` prints it."
  }
}

variable "package_url" {
  description = "Where machines get the Debian package, by HTTPS."
  type        = string

  validation {
    condition     = can(regex("^https://[^[:space:]\"]+$", var.package_url))
    error_message = "package_url begins with https://."
  }
}

variable "package_sha256" {
  description = "SHA-256 of the package, 64 hex digits."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.package_sha256))
    error_message = "package_sha256 is 64 hex digits, as `sha256sum` prints them."
  }
}

variable "controller" {
  description = "Addresses of the controller, HOST:PORT, instead of those in the tokens."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for at in var.controller : at != null])
    error_message = "controller has a null in it: remove it."
  }
}

variable "settings" {
  description = "More settings of every node, as in node.toml: texts, numbers, truth values, or lists of texts; null is as if it were not there. One of them is `emitter`: without evidence no node is a member. `role`, `name` and `join` are the module's own."
  type        = any

  validation {
    condition     = try(contains(["none", "mock", "command", "file", "directory"], var.settings.emitter), false)
    error_message = "settings has no emitter that meshd takes (none, mock, command, file, directory): without evidence no node is a member. See emitter in node.toml."
  }

  validation {
    condition     = alltrue([for key in try(keys(var.settings), []) : can(regex("^[a-z0-9_]+$", key))])
    error_message = "The name of a setting is of a-z, 0-9 and _, as in node.toml."
  }

  validation {
    condition     = alltrue([for key in ["role", "name", "join"] : try(var.settings[key], null) == null])
    error_message = "settings has role, name or join, which this module writes for each node: leave them out."
  }

  validation {
    condition = alltrue([
      for value in try(values(var.settings), []) :
      can(tostring(value)) || (can(tolist(value)) && alltrue([for one in try([for it in value : jsonencode(it)], []) : startswith(one, "\"")]))
    ])
    error_message = "A setting is a text, a number, a truth value, or a list of texts: node.toml has no tables."
  }
}
