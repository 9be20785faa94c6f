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
}

variable "settings" {
  description = "More settings of every node, as in node.toml: texts, numbers, truth values, or lists of texts. One of them is `emitter`: without evidence no node is a member."
  type        = any

  validation {
    condition     = can(var.settings.emitter)
    error_message = "settings has no emitter: without evidence no node is a member. See emitter in node.toml."
  }
}
