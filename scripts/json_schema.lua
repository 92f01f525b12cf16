-- Lets JSON bodies through that are what SCHEMA says, and rejects the others with the place of the first mistake:
-- "body.items[2].count: a number is expected, not a string". Needs `body: true` in the declaration of the hook.
--
-- A schema is a table: `type` is object, array, string, number, integer, boolean or any; an object has `fields`, those in
-- `required` must be there, and others are refused unless `open = true`; an array has `items`, `min` and `max`; a string has
-- `pattern` (of Lua), `min` and `max` in bytes, or `one_of`; a number has `min` and `max`. `null = true` allows null.
--
-- Bodies beyond BYTES_MAX are rejected unread: a script has 5 ms and 8 MiB unless the declaration says otherwise.

local SCHEMA = {
	type = "object",
	required = { "id", "items" },
	fields = {
		id = { type = "string", pattern = "^[%w-]+$", max = 64 },
		currency = { type = "string", one_of = { "EUR", "USD" } },
		note = { type = "string", null = true },
		items = {
			type = "array",
			min = 1,
			max = 1000,
			items = {
				type = "object",
				required = { "sku", "count" },
				fields = { sku = { type = "string" }, count = { type = "integer", min = 1 } },
			},
		},
	},
}

local BYTES_MAX = 64 * 1024
local DEPTH_MAX = 32

local find, sub = string.find, string.sub
local null = table.freeze({})

-- Reading JSON (RFC 8259). Arrays are { array = …, count = … }, objects { object = … }, so that the empty ones differ.

local ESCAPES = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local function fail(at)
	error({ text = `body is no JSON at byte {at}` }, 0)
end

local function blank(text, at)
	local _, last = find(text, "^[ \t\r\n]*", at)
	return last + 1
end

local function read_string(text, at)
	local start, parts = at + 1, nil
	while true do
		local stop = find(text, '["\\%c]', start)
		if not stop then
			fail(at)
		end
		local piece = sub(text, start, stop - 1)
		local found = sub(text, stop, stop)
		if found == '"' then
			return if parts then table.concat(parts) .. piece else piece, stop + 1
		elseif found ~= "\\" then
			fail(stop)
		end
		parts = parts or {}
		table.insert(parts, piece)
		local escape = sub(text, stop + 1, stop + 1)
		if escape == "u" then
			local digits = string.match(text, "^%x%x%x%x", stop + 2)
			if not digits then
				fail(stop)
			end
			local code = tonumber(digits, 16)
			-- Halves of a pair stay as they are; what is checked here is not text beyond the first plane.
			table.insert(parts, if code >= 0xD800 and code <= 0xDFFF then "?" else utf8.char(code))
			start = stop + 6
		else
			table.insert(parts, ESCAPES[escape] or fail(stop))
			start = stop + 2
		end
	end
end

local read

local function read_object(text, at, depth)
	local fields = {}
	at = blank(text, at + 1)
	if sub(text, at, at) == "}" then
		return { object = fields }, at + 1
	end
	while true do
		if sub(text, at, at) ~= '"' then
			fail(at)
		end
		local name, value
		name, at = read_string(text, at)
		at = blank(text, at)
		if sub(text, at, at) ~= ":" then
			fail(at)
		end
		value, at = read(text, at + 1, depth)
		fields[name] = value
		at = blank(text, at)
		local next = sub(text, at, at)
		if next == "}" then
			return { object = fields }, at + 1
		elseif next ~= "," then
			fail(at)
		end
		at = blank(text, at + 1)
	end
end

local function read_array(text, at, depth)
	local items, count = {}, 0
	at = blank(text, at + 1)
	if sub(text, at, at) == "]" then
		return { array = items, count = 0 }, at + 1
	end
	while true do
		count += 1
		items[count], at = read(text, at, depth)
		at = blank(text, at)
		local next = sub(text, at, at)
		if next == "]" then
			return { array = items, count = count }, at + 1
		elseif next ~= "," then
			fail(at)
		end
		at += 1
	end
end

function read(text, at, depth)
	at = blank(text, at)
	local first = sub(text, at, at)
	if first == '"' then
		return read_string(text, at)
	elseif first == "{" or first == "[" then
		if depth >= DEPTH_MAX then
			error({ text = "body is nested too deep" }, 0)
		end
		return (if first == "{" then read_object else read_array)(text, at, depth + 1)
	end
	local word = string.match(text, "^%a+", at)
	if word == "true" or word == "false" then
		return word == "true", at + #word
	elseif word == "null" then
		return null, at + 4
	end
	local number = string.match(text, "^-?%d+%.?%d*[eE]?[+-]?%d*", at)
	local value = number and not find(number, "^-?0%d") and not find(number, "%.$") and tonumber(number)
	if not value then
		fail(at)
	end
	return value, at + #number
end

-- Judging.

local function kind_of(value)
	if value == null then
		return "null"
	elseif type(value) == "table" then
		return if value.array then "array" else "object"
	end
	return type(value)
end

local function refuse(place, text)
	error({ text = `{place}: {text}` }, 0)
end

local function check_range(schema, size, place, what)
	if schema.min and size < schema.min then
		refuse(place, `{what} is below {schema.min}`)
	elseif schema.max and size > schema.max then
		refuse(place, `{what} is above {schema.max}`)
	end
end

local judge

local function judge_object(value, schema, place)
	local fields = schema.fields or {}
	for _, name in schema.required or {} do
		if value.object[name] == nil then
			refuse(place, `'{name}' is missing`)
		end
	end
	for name, item in value.object do
		if fields[name] then
			judge(item, fields[name], `{place}.{name}`)
		elseif not schema.open then
			refuse(place, `'{name}' is not known`)
		end
	end
end

function judge(value, schema, place)
	local kind = kind_of(value)
	local wanted = if schema.type == "integer" then "number" else schema.type
	if kind == "null" and schema.null or wanted == "any" then
		return
	elseif kind ~= wanted then
		refuse(place, `{wanted} is expected, not {kind}`)
	end
	if kind == "object" then
		judge_object(value, schema, place)
	elseif kind == "array" then
		check_range(schema, value.count, place, "the number of items")
		if schema.items then
			for index = 1, value.count do
				judge(value.array[index], schema.items, `{place}[{index}]`)
			end
		end
	elseif kind == "string" then
		check_range(schema, #value, place, "its length")
		if schema.pattern and not find(value, schema.pattern) then
			refuse(place, "it is not spelled as it should be")
		elseif schema.one_of and not table.find(schema.one_of, value) then
			refuse(place, `it is none of {table.concat(schema.one_of, ", ")}`)
		end
	elseif kind == "number" then
		if schema.type == "integer" and value % 1 ~= 0 then
			refuse(place, "a whole number is expected")
		end
		check_range(schema, value, place, "it")
	end
end

local function check(text)
	local value, at = read(text, 1, 0)
	if blank(text, at) <= #text then
		fail(at)
	end
	judge(value, SCHEMA, "body")
end

return {
	on_publish = function(msg)
		if msg.size > BYTES_MAX then
			broker.reject(`body is larger than {BYTES_MAX} bytes`)
		end
		local ok, mistake = pcall(check, msg:body())
		if not ok then
			-- Anything else is an error of this script, or its time is up.
			if type(mistake) ~= "table" then
				error(mistake, 0)
			end
			broker.reject(mistake.text)
		end
	end,
}
