-- Keys in insert mode. One that has nothing to do does what it did before.
local api = vim.api
local M = {}

M.defaults = {
  accept = '<Tab>',
  accept_word = '<M-Right>',
  accept_line = '<M-C-Right>',
  next = '<M-]>',
  previous = '<M-[>',
  dismiss = '<C-]>',
}

local function codes(keys) return api.nvim_replace_termcodes(keys, true, true, true) end

local function mapping(keymap, key)
  local raw = codes(key)
  for _, found in ipairs(keymap) do
    if codes(found.lhs) == raw then return found end
  end
end

--- Do what the key does without us: by the buffer's mapping from before ours, or a global one, or none.
local function pass_on(key, before)
  local found = before or mapping(api.nvim_get_keymap('i'), key)
  if not found then return api.nvim_feedkeys(codes(key), 'in', false) end
  -- Under another name, for Neovim to run it as it is: expression, script-local, Lua, recursive or not.
  local name = '<Plug>(lsp-charrnn-passed-on-' .. key:gsub('[<>]', '') .. ')'
  local copy = vim.tbl_extend('force', found, { lhs = name, lhsraw = codes(name), buffer = 1 })
  copy.lhsrawalt = nil
  vim.fn.mapset('i', false, copy)
  api.nvim_feedkeys(codes(name), 'im', false)
end

---@param buf integer
function M.map(buf)
  if vim.g.lsp_charrnn_keys == false or vim.b[buf].lsp_charrnn_mapped then return end -- false: the user's own
  vim.b[buf].lsp_charrnn_mapped = true
  for action, key in pairs(vim.tbl_extend('force', M.defaults, vim.g.lsp_charrnn_keys or {})) do
    if key and M.defaults[action] then
      local before = mapping(api.nvim_buf_get_keymap(buf, 'i'), key)
      vim.keymap.set('i', key, function()
        local in_snippet = action == 'accept' and vim.snippet.active({ direction = 1 })
        if in_snippet or require('lsp_charrnn')[action]() == false then pass_on(key, before) end
      end, { buffer = buf, desc = 'lsp-charrnn: ' .. action:gsub('_', ' ') })
    end
  end
end

return M
