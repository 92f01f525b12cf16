-- Takes headers away that consumers should not see: credentials that a client library or a proxy has put into messages. The
-- queue keeps a message as it came; only what is delivered is changed, so it can be put at the broker, a vhost or a queue at any
-- time. Users in MAY_SEE get everything.
--
-- At an exchange it does the same for publishes, so that such headers are never stored.

local MAY_SEE = { audit = true }

-- Removed, in lower case.
local REMOVED = {
	["authorization"] = true,
	["cookie"] = true,
	["set-cookie"] = true,
	["x-api-key"] = true,
	["x-password"] = true,
}

-- Masked except for the end, so that people can still tell them apart.
local MASKED = {
	["x-card"] = true,
	["x-iban"] = true,
}

local function redact(msg)
	local removed
	for name, value in msg.headers do
		local lower = string.lower(name)
		if REMOVED[lower] then
			removed = removed or {}
			table.insert(removed, name)
		elseif MASKED[lower] and type(value) == "string" and #value > 4 then
			msg.headers[name] = string.rep("*", #value - 4) .. string.sub(value, -4)
		end
	end
	for _, name in removed or {} do
		msg.headers[name] = nil
	end
end

return {
	on_deliver = function(msg)
		if not MAY_SEE[msg.user] then
			redact(msg)
		end
	end,

	on_publish = redact,
}
