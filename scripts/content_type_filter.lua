-- Keeps an exchange to the content types that its consumers understand.
--
-- Known types pass, old spellings of them are put right, messages without a type are taken for bytes, and everything
-- else is rejected. Probes of monitoring, which carry the header `x-probe`, are dropped without a word.

local SPELLINGS = {
	["application/json"] = "application/json",
	["text/json"] = "application/json",
	["application/x-json"] = "application/json",
	["application/x-protobuf"] = "application/x-protobuf",
	["application/protobuf"] = "application/x-protobuf",
	["application/octet-stream"] = "application/octet-stream",
}

return {
	on_publish = function(msg)
		if msg.headers["x-probe"] then
			return false
		end
		local given = msg.content_type or "application/octet-stream"
		-- "text/JSON; charset=utf-8" is "text/json" here.
		local name = string.match(string.lower(given), "^%s*([^;%s]*)")
		local known = SPELLINGS[name]
		if not known then
			broker.reject(`content type '{given}' is not accepted here`)
		end
		if known ~= name or not msg.content_type then
			msg.content_type = known
		end
	end,
}
