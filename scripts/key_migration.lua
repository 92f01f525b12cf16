-- Renames routing keys while publishers still use the old ones: move consumers first, publishers when there is time.
--
-- The longest old prefix of whole words that fits is exchanged for the new one; the rest of the key stays. What was renamed
-- says so in the header `x-old-routing-key`, so that the publishers that are left can be found. Other keys pass as they are.
--
-- Try it in shadow mode first: `/api/x/hooks/key_migration/records` then shows what would be renamed.

local NEW = {
	["order"] = "shop.orders",
	["order.cancel"] = "shop.cancellations",
	["user.signup"] = "accounts.created",
}

-- The new prefix and what follows the old one.
local function renamed(key)
	local prefix = key
	while prefix do
		local new = NEW[prefix]
		if new then
			return new .. string.sub(key, #prefix + 1)
		end
		prefix = string.match(prefix, "^(.*)%.[^.]*$")
	end
	return nil
end

return {
	on_publish = function(msg)
		local old = msg.routing_key
		local new = renamed(old)
		if new then
			msg.routing_key = new
			msg.headers["x-old-routing-key"] = old
		end
	end,
}
