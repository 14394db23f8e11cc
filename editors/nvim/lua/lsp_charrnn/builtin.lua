-- Neovim 0.12's inline completion asks, waits and cycles; here is what 0.12.4 gets wrong, set right for our suggestions.
--
-- For 200 ms after a key it holds the suggestion for the text before that key. It shows that one less a character for each
-- one typed, matching or not, and inserts all of it, in front of what was typed. An answer to an older text, which is empty,
-- takes away what was shown since. And it never asks for more than one. All of this is reached by `Completor`, which is
-- Neovim's own business: where a later version has made it another, `usable` says no, and `own` takes over.
local text = require('lsp_charrnn.text')
local api = vim.api
local M = {}

local NEEDED = { 'abort', 'count_items', 'handler', 'hide', 'reset_timer', 'select', 'show' }
local namespace = api.nvim_create_namespace('nvim.lsp.inline_completion')
local Completor ---@type table? Neovim's class

--- Whether an item or the context of an answer is from our server.
local function ours(what)
  local client = what and vim.lsp.get_client_by_id(what.client_id)
  return client ~= nil and client.name == 'lsp_charrnn'
end

--- Make the current item what is left of it at the cursor, or no item where it doesn't fit the text any more.
local function fit(completor)
  local item, buf = completor.current, completor.bufnr
  local row, col = item.range:to_extmark()
  local here = api.nvim_get_current_buf() == buf
  local anchor = here and (item.anchor or text.anchor(buf, row, col))
  local rest = anchor and text.rest(anchor, item.insert_text)
  if not rest or rest == '' then
    completor.current = nil
    return
  end
  local cursor = api.nvim_win_get_cursor(0)
  row, col = cursor[1] - 1, cursor[2]
  item.insert_text, item.anchor = rest, text.anchor(buf, row, col)
  item.range = vim.range.extmark(buf, row, col, row, col)
end

--- Whether this Neovim's inline completion is as we know it. Sets it right, the first time.
---@return boolean
function M.usable()
  if Completor then return true end
  if not vim.lsp.inline_completion or not vim.range then return false end
  local found, capability = pcall(require, 'vim.lsp._capability')
  local class = found and type(capability.all) == 'table' and capability.all.inline_completion
  if not class or type(class.active) ~= 'table' then return false end
  for _, name in ipairs(NEEDED) do
    if type(class[name]) ~= 'function' then return false end
  end
  local handler, show = class.handler, class.show
  class.handler = function(completor, err, result, context)
    local old = context.version ~= vim.lsp.util.buf_versions[completor.bufnr]
    if not (old and ours(context)) then handler(completor, err, result, context) end
  end
  class.show = function(completor, hint)
    if not ours(completor.current) then return show(completor, hint) end
    fit(completor)
    completor:hide()
    if completor.current then text.draw(namespace, completor.current.insert_text, hint) end
  end
  Completor = class
  return true
end

local function active() return Completor and Completor.active[api.nvim_get_current_buf()] end

---@param buf integer
function M.attach(buf)
  if not vim.lsp.inline_completion.is_enabled({ bufnr = buf }) then vim.lsp.inline_completion.enable(true, { bufnr = buf }) end
end

--- What is shown, to be inserted at the cursor.
---@return { client_id: integer, text: string, command: lsp.Command? }?
function M.current()
  local completor = active()
  if not completor or not ours(completor.current) then return nil end
  fit(completor)
  local item = completor.current
  if not item then completor:hide() end
  return item and { client_id = item.client_id, text = item.insert_text, command = item.command } or nil
end

--- Bring what is shown in line with the text.
function M.update()
  local completor = active()
  if completor then completor:show() end
end

function M.dismiss()
  local completor = active()
  if completor then completor:abort() end
end

local function step(completor, by)
  local count, from = completor:count_items(), completor.current._index
  local index = from
  repeat
    index = (index - 1 + by) % count + 1
    completor:select(index)
  until completor.current or index == from
end

--- Show another suggestion; where none is shown, the first. The server sends one unasked: ask for the others.
---@param by 1|-1
function M.cycle(by)
  local completor = active()
  if not completor then return end
  completor:reset_timer() -- what is asked there would come back with one item
  if completor.current and completor:count_items() > 1 then return step(completor, by) end
  local client = vim.lsp.get_clients({ bufnr = completor.bufnr, name = 'lsp_charrnn' })[1]
  if not client then return end
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = vim.lsp.protocol.InlineCompletionTriggerKind.Invoked }
  client:request('textDocument/inlineCompletion', params, function(...)
    local another = completor.current ~= nil
    completor:handler(...)
    if another and completor.current then step(completor, by) end
  end, completor.bufnr)
end

return M
