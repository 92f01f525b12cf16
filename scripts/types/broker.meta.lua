---@meta
-- What hook scripts see, for editors with lua-language-server (LuaLS): `broker script types --for luals > broker.meta.lua`, in a folder that is named
-- under "Lua.workspace.library", and a type at the parameter:
--
--   return {
--       ---@param msg Message
--       on_publish = function(msg) … end,
--   }
--
-- or, for all of them at once, `---@type Hooks` before the table. The broker ignores comments. A test of the broker compares every name here with what scripts
-- really see.

---@alias HeaderValue string|number|boolean|table

-- Read, write, nil removes; `for name, value in msg.headers do`; `#msg.headers`.
---@class Headers
---@field [string] HeaderValue?

---@class Message
---@field routing_key string
---@field headers Headers
---@field exchange string read only
---@field vhost string read only
---@field user string read only
---@field queue string? read only: the queue that it comes out of
---@field redelivered boolean? read only: whether somebody had it before
---@field reason string? read only: why it died
---@field size integer read only: of the body, in bytes
---@field content_type string?
---@field content_encoding string?
---@field delivery_mode integer?
---@field priority integer?
---@field correlation_id string?
---@field reply_to string?
---@field expiration string|integer|nil milliseconds
---@field message_id string?
---@field timestamp integer? seconds since 1970
---@field type string?
---@field user_id string? read only
---@field app_id string?
---@field cluster_id string? read only
---@field body fun(self: Message): string needs `body: true` in the declaration of the hook

---@class Client
---@field vhost string
---@field user string
---@field address string
---@field port integer
---@field mechanism string
---@field name string
---@field properties table<string, any>

---@class Declaration
---@field vhost string
---@field user string
---@field kind "exchange"|"queue"|"binding"
---@field name string of a binding that of its destination
---@field type string? of an exchange or a queue
---@field durable boolean? of an exchange or a queue
---@field auto_delete boolean? of an exchange or a queue
---@field exclusive boolean? of an exchange or a queue
---@field internal boolean? of an exchange or a queue
---@field arguments table<string, any>
---@field source string? of a binding: the exchange that messages come from
---@field destination_type "exchange"|"queue"|nil of a binding
---@field routing_key string? of a binding

---@class Shared
---@field get fun(key: string): string|number|boolean|nil
---@field set fun(key: string, value: string|number|boolean|nil, ttl?: number) `ttl` in seconds; nil as the value removes
---@field add fun(key: string, amount?: number, ttl?: number): number the sum; `ttl` counts from when the counter began

---@class Broker
---@field drop fun(why?: string)
---@field reject fun(why?: string)
---@field dead_letter fun(why?: string)
---@field log fun(level: "error"|"warn"|"info"|"debug"|"trace", text: string)
---@field now fun(): number seconds since 1970, with a fraction
---@field shared Shared

---@type Broker
broker = nil

---@class Hooks
---@field on_publish? fun(msg: Message): boolean?
---@field on_deliver? fun(msg: Message): boolean?
---@field on_dead_letter? fun(msg: Message): boolean?
---@field on_connect? fun(client: Client): boolean?
---@field on_declare? fun(declaration: Declaration): boolean?
